/* SPDX-License-Identifier: MPL-2.0 */
/*
 * unmounter.h - a process that does one thing: run fusermount3 when the daemon ends.
 *
 * Role     A user who isn't root unmounts by the setuid fusermount3. A daemon that may run it can't give up new
 *          privileges or other programs, and the daemon is what reads the host's bytes. So this process, which has no
 *          key and no file but its end of a socket, keeps that right, and the daemon gives it up. All that it can
 *          be asked for is to unmount the one mount point that it was started for.
 * Life     mls_unmounter_start; ask once the workers are gone; wait once the session is closed. It ends by
 *          itself when the daemon does, however that was; a dead mount stays for the next start, as always.
 */
#ifndef MLS_FUSE_UNMOUNTER_H
#define MLS_FUSE_UNMOUNTER_H

#include <stdbool.h>

struct mls_fuse_options;

struct mls_unmounter {
	int fd;			/* our end; -1: there is none */
	bool asked;
};

/*
 * For who needs one: not root, nor a mount with auto_unmount, whose fusermount3 stays and unmounts. Before any
 * secret is read and before threads. argc, argv: main's; in the new process they are overwritten, so that ps
 * and pgrep -f don't take it for the daemon. On failure there is none, which is said.
 */
void mls_unmounter_start(struct mls_unmounter *unmounter, const struct mls_fuse_options *options, int argc,
			 char **argv);

/* Is whoever unmounts another process than the one that calls this? */
bool mls_unmounter_suffices(const struct mls_unmounter *unmounter, const struct mls_fuse_options *options);

/* Unless it is unmounted already, as session_fd tells. */
void mls_unmounter_ask(struct mls_unmounter *unmounter, int session_fd);

/* Until it's done. The session's file is closed before: requests that nobody answers would keep it waiting. */
void mls_unmounter_wait(struct mls_unmounter *unmounter);

#endif
