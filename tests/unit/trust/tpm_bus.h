/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tpm_bus.h - swtpm, a whole TPM 2.0, and the adversary on its bus.
 *
 * The store talks to a proxy, which records, changes, answers in the TPM's place, replays, and cuts the power.
 */
#ifndef MLS_TEST_TPM_BUS_H
#define MLS_TEST_TPM_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_BYTES 4096u
#define CC_NV_WRITE 0x137u
#define CC_NV_READ 0x14eu

/* ---- The TPM ---- */

extern char tpm_dir[64];	/* its state and sockets */

void tpm_make_dir(void);
void tpm_path(char path[128], const char *name);
void tpm_start(void);
void tpm_kill(void);		/* its power goes */

/* ---- The proxy ---- */

enum prank { HONEST, FLIP_COMMAND, FLIP_ANSWER, ANSWER_CODE, REPLAY, CUT_BEFORE, CUT_AFTER };

struct bus {
	pthread_mutex_t lock;
	pthread_t thread;
	int listen_fd;
	enum prank prank;
	uint32_t on;			/* the command code that is concerned */
	unsigned nr;			/* how many times */
	size_t at;			/* which byte */
	uint32_t code;
	bool done;			/* the prank was played */
	size_t last_bytes;		/* of the last message of its kind */
	uint8_t answer[MESSAGE_BYTES];	/* the last honest answer to CC_NV_READ */
	size_t answer_bytes;
	uint8_t *traffic;		/* all of it */
	size_t traffic_bytes;
};

extern struct bus bus;

void bus_start(void);
void bus_end(void);
/* To be played on the next nr commands of code on; at: which byte. */
void bus_set_prank(enum prank prank, uint32_t on, unsigned nr, size_t at);
bool bus_played(void);

#endif
