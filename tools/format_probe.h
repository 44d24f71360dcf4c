/* SPDX-License-Identifier: MPL-2.0 */
/* format_probe.h - does the target hold something that a format would destroy? */
#ifndef MLS_TOOLS_FORMAT_PROBE_H
#define MLS_TOOLS_FORMAT_PROBE_H

#include "mlsdisk/mlsdisk.h"

#define FORMAT_FOUND_BYTES 128

/*
 * found    gets what is there, such as "a signature of ext4"; "" if nothing is. Untouched on error.
 * Returns  0; an error of mls_block_dev_open, MLS_EIO or MLS_ENOMEM after a message.
 */
MLS_MUST_CHECK int format_probe(const char *path, char found[FORMAT_FOUND_BYTES]);

#endif
