/* SPDX-License-Identifier: MPL-2.0 */
/* asan.h - MLS_ASAN: does AddressSanitizer watch? gcc and clang tell in different ways. */
#ifndef MLS_BASE_ASAN_H
#define MLS_BASE_ASAN_H

#if defined __SANITIZE_ADDRESS__
#define MLS_ASAN 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define MLS_ASAN 1
#endif
#endif
#ifndef MLS_ASAN
#define MLS_ASAN 0
#endif

#endif
