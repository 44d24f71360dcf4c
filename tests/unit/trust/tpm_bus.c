/* SPDX-License-Identifier: MPL-2.0 */
/* tpm_bus.c - swtpm, and the adversary on its bus; see tpm_bus.h. */
#include "tests/unit/trust/tpm_bus.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- The TPM ---- */

char tpm_dir[64];
static pid_t tpm_pid;

void tpm_make_dir(void)
{
	snprintf(tpm_dir, sizeof tpm_dir, "/tmp/test_store_tpm2.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(tpm_dir));
}

void tpm_path(char path[128], const char *name)
{
	snprintf(path, 128, "%s/%s", tpm_dir, name);
}

static int connect_to(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", tpm_dir, name);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

void tpm_start(void)
{
	char state[192], server[192], ctrl[192];
	const struct timespec moment = { .tv_nsec = 5000000 };

	snprintf(state, sizeof state, "dir=%s", tpm_dir);
	snprintf(server, sizeof server, "type=unixio,path=%s/tpm", tpm_dir);
	snprintf(ctrl, sizeof ctrl, "type=unixio,path=%s/tpm.ctrl", tpm_dir);
	tpm_pid = fork();
	ck_assert_int_ge(tpm_pid, 0);
	if (tpm_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(126);
		execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", state, "--server", server, "--ctrl", ctrl,
		       "--flags", "not-need-init,startup-clear", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 2000; i++) {
		int fd = connect_to("tpm");

		if (fd >= 0) {
			close(fd);
			return;
		}
		nanosleep(&moment, NULL);
	}
	ck_abort_msg("swtpm doesn't answer");
}

void tpm_kill(void)
{
	char path[128];

	kill(tpm_pid, SIGKILL);
	waitpid(tpm_pid, NULL, 0);
	tpm_path(path, "tpm");
	unlink(path);
	tpm_path(path, "tpm.ctrl");
	unlink(path);
}

/* ---- The proxy ---- */

struct bus bus = { .lock = PTHREAD_MUTEX_INITIALIZER };

void bus_set_prank(enum prank prank, uint32_t on, unsigned nr, size_t at)
{
	pthread_mutex_lock(&bus.lock);
	bus.prank = prank;
	bus.on = on;
	bus.nr = nr;
	bus.at = at;
	bus.done = false;
	pthread_mutex_unlock(&bus.lock);
}

bool bus_played(void)
{
	bool done;

	pthread_mutex_lock(&bus.lock);
	done = bus.done;
	pthread_mutex_unlock(&bus.lock);
	return done;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static bool get_all(int fd, uint8_t *data, size_t bytes)
{
	while (bytes) {
		ssize_t n = read(fd, data, bytes);

		if (n <= 0)
			return false;
		data += n;
		bytes -= (size_t)n;
	}
	return true;
}

static bool put_all(int fd, const uint8_t *data, size_t bytes)
{
	return send(fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* A whole TPM message; 0: the other side has gone. */
static size_t get_message(int fd, uint8_t data[MESSAGE_BYTES])
{
	size_t bytes;

	if (!get_all(fd, data, 10))
		return 0;
	bytes = be32(data + 2);
	if (bytes < 10 || bytes > MESSAGE_BYTES || !get_all(fd, data + 10, bytes - 10))
		return 0;
	bus.traffic = realloc(bus.traffic, bus.traffic_bytes + bytes);
	memcpy(bus.traffic + bus.traffic_bytes, data, bytes);
	bus.traffic_bytes += bytes;
	return bytes;
}

static size_t ask_tpm(int tpm, const uint8_t *command, size_t bytes, uint8_t answer[MESSAGE_BYTES])
{
	return put_all(tpm, command, bytes) ? get_message(tpm, answer) : 0;
}

/* One command there, its answer back; the lock is held. false: the connection ends. */
static bool relay(int store, int tpm, uint8_t *command, size_t bytes)
{
	uint8_t answer[MESSAGE_BYTES];
	uint32_t code = be32(command + 6);
	enum prank prank = bus.nr && code == bus.on ? bus.prank : HONEST;
	size_t answer_bytes;

	if (prank != HONEST) {
		bus.nr--;
		bus.done = true;
		bus.last_bytes = bytes;
	}
	if (prank == CUT_BEFORE)
		return false;
	if (prank == ANSWER_CODE) {
		uint8_t refusal[10] = { 0x80, 0x01, 0, 0, 0, 10 };

		put_be32(refusal + 6, bus.code);
		return put_all(store, refusal, sizeof refusal);
	}
	if (prank == FLIP_COMMAND && bus.at < bytes)
		command[bus.at] ^= 0x10;
	answer_bytes = ask_tpm(tpm, command, bytes, answer);
	if (!answer_bytes || prank == CUT_AFTER)
		return false;
	if (prank == REPLAY)
		return put_all(store, bus.answer, bus.answer_bytes);
	if (prank == FLIP_ANSWER) {
		bus.last_bytes = answer_bytes;
		if (bus.at < answer_bytes)
			answer[bus.at] ^= 0x10;
	} else if (code == CC_NV_READ) {
		memcpy(bus.answer, answer, answer_bytes);
		bus.answer_bytes = answer_bytes;
	}
	return put_all(store, answer, answer_bytes);
}

static void *proxy(void *arg)
{
	uint8_t command[MESSAGE_BYTES];
	int store, tpm;

	(void)arg;
	while ((store = accept(bus.listen_fd, NULL, NULL)) >= 0) {
		bool go_on = true;

		tpm = connect_to("tpm");
		while (go_on && tpm >= 0) {
			size_t bytes = get_message(store, command);

			pthread_mutex_lock(&bus.lock);
			go_on = bytes && relay(store, tpm, command, bytes);
			pthread_mutex_unlock(&bus.lock);
		}
		close(store);
		if (tpm >= 0)
			close(tpm);
	}
	return NULL;
}

void bus_start(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char ctrl[128];

	bus.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s/bus", tpm_dir);
	ck_assert_int_eq(bind(bus.listen_fd, (struct sockaddr *)&address, sizeof address), 0);
	ck_assert_int_eq(listen(bus.listen_fd, 4), 0);
	tpm_path(ctrl, "bus.ctrl");
	ck_assert_int_eq(symlink("tpm.ctrl", ctrl), 0);
	ck_assert_int_eq(pthread_create(&bus.thread, NULL, proxy, NULL), 0);
}

void bus_end(void)
{
	shutdown(bus.listen_fd, SHUT_RDWR);
	pthread_join(bus.thread, NULL);
	close(bus.listen_fd);
	free(bus.traffic);
}
