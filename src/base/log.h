/* SPDX-License-Identifier: MPL-2.0 */
/*
 * log.h - below all layers: messages for people.
 *
 * Role     One line a message, formatted here, handed to the logger set by mls_set_logger. Says
 *          layer, HBA and numbers; never user data, never key material.
 * Threads  Any.
 */
#ifndef MLS_BASE_LOG_H
#define MLS_BASE_LOG_H

#include "mlsdisk/mlsdisk.h"

void mls_log(enum mls_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define mls_error(...) mls_log(MLS_LOG_ERROR, __VA_ARGS__)
#define mls_warn(...) mls_log(MLS_LOG_WARNING, __VA_ARGS__)
#define mls_info(...) mls_log(MLS_LOG_INFO, __VA_ARGS__)
#define mls_debug(...) mls_log(MLS_LOG_DEBUG, __VA_ARGS__)

#endif
