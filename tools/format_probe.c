/* SPDX-License-Identifier: MPL-2.0 */
/*
 * format_probe.c - does the target hold something that a format would destroy?
 *
 * An MlsDisk we know ourselves. File systems, RAID members and partition tables are known to libblkid;
 * where that is missing, the first and the last MiB must be zero.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "format_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_BLKID
#include <blkid.h>
#endif

#include "cli/cli.h"

static int probe_mlsdisk(const char *path, char found[FORMAT_FOUND_BYTES])
{
	struct mls_block_dev *dev = NULL;
	struct mls_probe probe = { 0 };
	char uuid[MLS_UUID_TEXT_BYTES];
	int err;

	err = mls_block_dev_open(&dev, path, MLS_DEV_READ_ONLY, 0);
	if (err)
		return err;
	err = mls_probe(dev, &probe);
	mls_block_dev_destroy(dev);
	if (err) {
		mls_cli_error("%s: can't be read: %s", path, mls_strerror(err));
		return err;
	}
	mls_uuid_format(uuid, probe.uuid);
	if (probe.is_mlsdisk)
		snprintf(found, FORMAT_FOUND_BYTES, "an MlsDisk (UUID %s)", uuid);
	return 0;
}

#ifdef HAVE_BLKID

static int probe_others(int fd, const char *path, char found[FORMAT_FOUND_BYTES])
{
	blkid_probe pr = blkid_new_probe();
	const char *type = NULL;
	int rc = -1;

	if (pr && blkid_probe_set_device(pr, fd, 0, 0) == 0) {
		blkid_probe_enable_superblocks(pr, 1);
		blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE);
		blkid_probe_enable_partitions(pr, 1);
		rc = blkid_do_safeprobe(pr);
	}
	if (rc == -2)
		snprintf(found, FORMAT_FOUND_BYTES, "signatures of several file systems");
	else if (rc == 0 && blkid_probe_lookup_value(pr, "TYPE", &type, NULL) == 0)
		snprintf(found, FORMAT_FOUND_BYTES, "a signature of %s", type);
	else if (rc == 0 && blkid_probe_lookup_value(pr, "PTTYPE", &type, NULL) == 0)
		snprintf(found, FORMAT_FOUND_BYTES, "a %s partition table", type);
	else if (rc == 0)
		snprintf(found, FORMAT_FOUND_BYTES, "something that libblkid knows");
	blkid_free_probe(pr);
	if (rc == -1) {
		mls_cli_error("%s: can't look for file systems: %s", path, strerror(errno));
		return MLS_EIO;
	}
	return 0;
}

#else

#define LOOK_BYTES ((size_t)1 << 20)

/* Is the MiB at this offset zero, as far as there is one? -1: errno. */
static int mib_is_zero(int fd, char *room, off_t at)
{
	ssize_t n = pread(fd, room, LOOK_BYTES, at);

	if (n <= 0)
		return n < 0 ? -1 : 1;
	return room[0] == 0 && memcmp(room, room + 1, (size_t)n - 1) == 0;
}

static int probe_others(int fd, const char *path, char found[FORMAT_FOUND_BYTES])
{
	char *room = malloc(LOOK_BYTES);
	off_t end = lseek(fd, 0, SEEK_END);
	int first = -1, last = -1;

	if (!room)
		return MLS_ENOMEM;
	if (end >= 0)
		first = mib_is_zero(fd, room, 0);
	if (first >= 0)
		last = mib_is_zero(fd, room, end > (off_t)LOOK_BYTES ? end - (off_t)LOOK_BYTES : 0);
	free(room);
	if (last < 0) {
		mls_cli_error("%s: %s", path, strerror(errno));
		return MLS_EIO;
	}
	if (!first || !last)
		snprintf(found, FORMAT_FOUND_BYTES, "data (its first or last MiB isn't zero)");
	return 0;
}

#endif

int format_probe(const char *path, char found[FORMAT_FOUND_BYTES])
{
	char text[FORMAT_FOUND_BYTES] = "";
	int err = probe_mlsdisk(path, text), fd;

	if (err)
		return err;
	if (!text[0]) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			mls_cli_error("%s: %s", path, strerror(errno));
			return MLS_EIO;
		}
		err = probe_others(fd, path, text);
		close(fd);
	}
	if (!err)
		memcpy(found, text, sizeof text);
	return err;
}
