/* SPDX-License-Identifier: MPL-2.0 */
/* test_sanitizer.h - does a sanitizer watch? Freed memory then stays resident, and everything takes longer. */
#ifndef MLS_TEST_SANITIZER_H
#define MLS_TEST_SANITIZER_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEST_SANITIZER 1
#endif
#endif
#ifndef TEST_SANITIZER
#define TEST_SANITIZER 0
#endif

#endif
