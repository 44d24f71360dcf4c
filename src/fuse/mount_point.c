/* SPDX-License-Identifier: MPL-2.0 */
/*
 * mount_point.c - is this directory fit to be mounted on; see mount_point.h.
 *
 * A daemon that was killed leaves its mount behind, and everything under it answers ENOTCONN. A
 * restart should just work, so such a mount is taken away, but only if it is ours: type
 * fuse.mlsdisk in /proc/self/mountinfo.
 */
#include "fuse/mount_point.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/log_sink.h"

#define STALE_MAX 16 /* mounts of dead daemons on one directory, one above the other */

/* realpath of the parent plus the name: looking at a dead mount itself would fail. */
static char *absolute_of(const char *path)
{
	char *for_dir = strdup(path), *for_base = strdup(path), *parent = NULL, *absolute = NULL;
	const char *base;

	if (!for_dir || !for_base)
		goto out;
	base = basename(for_base);
	if (strcmp(base, "/") == 0 || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
		absolute = realpath(path, NULL);
		goto out;
	}
	parent = realpath(dirname(for_dir), NULL);
	if (parent && asprintf(&absolute, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, base) < 0)
		absolute = NULL;
out:
	free(for_dir);
	free(for_base);
	free(parent);
	return absolute;
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned value;

		if (*from == '\\' && sscanf(from + 1, "%3o", &value) == 1) {
			*to = (char)value;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Is the topmost mount on this directory an MlsDisk? */
static bool ours_is_mounted(const char *absolute)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool ours = false;

	if (!file)
		return false;
	while (getline(&line, &room, file) > 0) {
		char *place = NULL, *type = NULL;
		char *dash = strstr(line, " - ");

		if (dash && sscanf(line, "%*s %*s %*s %*s %ms", &place) == 1) {
			unescape(place);
			if (strcmp(place, absolute) == 0 && sscanf(dash + 3, "%ms", &type) == 1)
				ours = strcmp(type, "fuse." MLS_FUSE_SUBTYPE) == 0;
		}
		free(place);
		free(type);
	}
	free(line);
	fclose(file);
	return ours;
}

int mls_fusermount_unmount(const char *absolute)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "--", absolute, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static int clear_stale(const char *absolute)
{
	if (ours_is_mounted(absolute) &&
	    (umount2(absolute, MNT_DETACH) == 0 || mls_fusermount_unmount(absolute) == 0)) {
		mls_say(MLS_LOG_WARNING, "%s: the daemon that served this mount is gone; unmounted it",
			absolute);
		return MLS_OK;
	}
	mls_say(MLS_LOG_ERROR,
		"%s: a file system whose daemon is gone is still mounted there; unmount it with: "
		"fusermount3 -u -z %s  (or, as root, umount -l)",
		absolute, absolute);
	return MLS_EIO;
}

/* 0, or errno. The kernel answers stat of a dead mount from its cache; open asks the daemon. */
static int look_at(const char *absolute, struct stat *st)
{
	int fd;

	if (stat(absolute, st))
		return errno;
	if (!S_ISDIR(st->st_mode))
		return 0;
	fd = open(absolute, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == EACCES ? 0 : errno;
	close(fd);
	return 0;
}

int mls_mount_point_prepare(const char *path, char **absolute)
{
	char *found = absolute_of(path);
	struct stat st;
	int err = MLS_OK, failed = 0;

	if (!found) {
		mls_say(MLS_LOG_ERROR, "mount point %s: %s", path, strerror(errno));
		return errno == ENOENT ? MLS_ENOENT : MLS_EIO;
	}
	for (int i = 0; i < STALE_MAX && !err; i++) {
		failed = look_at(found, &st);
		if (failed != ENOTCONN && failed != ECONNABORTED)
			break;
		err = clear_stale(found);
	}
	if (err)
		goto out;
	if (failed) {
		mls_say(MLS_LOG_ERROR, "mount point %s: %s%s", path, strerror(failed),
			failed == ENOENT ? " (make it with mkdir)" : "");
		err = failed == ENOENT ? MLS_ENOENT : MLS_EIO;
	} else if (!S_ISDIR(st.st_mode)) {
		mls_say(MLS_LOG_ERROR, "mount point %s: expected a directory", path);
		err = MLS_EINVAL;
	} else if (ours_is_mounted(found)) {
		mls_say(MLS_LOG_ERROR,
			"mount point %s: an MlsDisk is served there already; end it with: fusermount3 -u %s",
			path, path);
		err = MLS_EBUSY;
	}
out:
	if (err)
		free(found);
	else
		*absolute = found;
	return err;
}
