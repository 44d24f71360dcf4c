/* SPDX-License-Identifier: MPL-2.0 */
/*
 * harden.h - what the serving process asks of the kernel, and what it gives up before there are threads.
 *
 * What the kernel refuses is said as a warning, and we go on: a disk that can't be served at all
 * protects nobody's data.
 */
#ifndef MLS_FUSE_HARDEN_H
#define MLS_FUSE_HARDEN_H

/* LeakSanitizer stops the threads that it looks at, by ptrace. */
#if defined __has_feature
#if __has_feature(address_sanitizer)
#define MLS_NEEDS_PTRACE 1
#endif
#endif
#if defined __SANITIZE_ADDRESS__
#define MLS_NEEDS_PTRACE 1
#endif

/* In the serving process, before threads: limits and capabilities are a thread's, and inherited. */
void mls_harden_process(void);

#endif
