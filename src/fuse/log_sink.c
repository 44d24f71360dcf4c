/* SPDX-License-Identifier: MPL-2.0 */
/*
 * log_sink.c - where the daemon's messages go; see log_sink.h.
 *
 * States   stderr (start, and for ever in the foreground) -> syslog (background, once ready).
 */

#include "fuse/log_sink.h"

#include <fuse_log.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>

static atomic_bool sink_is_syslog;

static void sink_write(void *arg, enum mls_log_level level, const char *message)
{
	static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	(void)arg;
	if (level >= MLS_LOG_DEBUG)
		return;
	if (atomic_load(&sink_is_syslog))
		syslog(priority[level], "%s", message);
	else
		fprintf(stderr, "mlsdisk-fuse: %s%s\n", level == MLS_LOG_WARNING ? "warning: " : "", message);
}

/* libfuse says a line in pieces; the newline ends it. Its debug lines (-o debug) go to stderr. */
static void sink_write_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char line[1024];
	static size_t used;
	int more;

	if (level >= FUSE_LOG_DEBUG) {
		vfprintf(stderr, format, args);
		return;
	}
	pthread_mutex_lock(&lock);
	more = vsnprintf(line + used, sizeof line - used, format, args);
	if (more > 0)
		used = used + (size_t)more < sizeof line ? used + (size_t)more : sizeof line - 1;
	if (used > 0 && (line[used - 1] == '\n' || used == sizeof line - 1)) {
		line[used - (line[used - 1] == '\n')] = '\0';
		sink_write(NULL, level <= FUSE_LOG_ERR ? MLS_LOG_ERROR : MLS_LOG_INFO, line);
		used = 0;
	}
	pthread_mutex_unlock(&lock);
}

void mls_log_sink_init(void)
{
	mls_set_logger(sink_write, NULL);
	fuse_set_log_func(sink_write_libfuse);
}

void mls_log_sink_to_syslog(void)
{
	openlog("mlsdisk-fuse", LOG_PID, LOG_DAEMON);
	atomic_store(&sink_is_syslog, true);
}

void mls_say(enum mls_log_level level, const char *format, ...)
{
	char message[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	sink_write(NULL, level, message);
}
