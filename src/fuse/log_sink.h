/* SPDX-License-Identifier: MPL-2.0 */
/*
 * log_sink.h - where the daemon's messages go: stderr until image.raw is ready, then syslog.
 *
 * Role     Carries the library's messages (mls_set_logger), libfuse's and the program's own.
 *          In the foreground all stay on stderr.
 * Threads  mls_say from any thread; the others before threads start or from main only.
 */
#ifndef MLS_FUSE_LOG_SINK_H
#define MLS_FUSE_LOG_SINK_H

#include "mlsdisk/mlsdisk.h"

/* Route everything to stderr. */
void mls_log_sink_init(void);

/* From now on to syslog (facility daemon); stderr is left alone. */
void mls_log_sink_to_syslog(void);

/* One message of this program, without a newline. */
void mls_say(enum mls_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
