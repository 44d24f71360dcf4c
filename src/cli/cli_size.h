/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cli_size.h - beside the layers: sizes as people write them.
 *
 * Shapes   SIZE: decimal digits, then nothing or one of K M G T (powers of 1024, either case),
 *          with "B" or "iB" behind it if you like: 4096, 64K, 16GiB. Units are always 1024.
 */
#ifndef MLS_CLI_CLI_SIZE_H
#define MLS_CLI_CLI_SIZE_H

#include "mlsdisk/mlsdisk.h"

/*
 * option   named in messages, such as "--size".
 * Returns  0; MLS_EINVAL after a message that says what is wrong: not a SIZE, 0, or over 8 EiB - 1.
 */
MLS_MUST_CHECK int mls_cli_parse_size(const char *option, const char *text, uint64_t *bytes);

#define MLS_CLI_SIZE_TEXT_BYTES 48

/* "16 GiB", or "1.5 GiB", or "1000 bytes": rounded down to one digit after the point. Returns text. */
const char *mls_cli_format_size(char text[MLS_CLI_SIZE_TEXT_BYTES], uint64_t bytes);

#endif
