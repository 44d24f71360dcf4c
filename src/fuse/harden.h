/* SPDX-License-Identifier: MPL-2.0 */
/* harden.h - what a process that the kernel reclaims memory through asks of the kernel. */
#ifndef MLS_FUSE_HARDEN_H
#define MLS_FUSE_HARDEN_H

/* In the serving process, before threads. What is refused is said as a warning, and we go on. */
void mls_harden_process(void);

#endif
