/* SPDX-License-Identifier: MPL-2.0 */
/*
 * nonce_set.h - every (key, nonce) that was ever used to seal, and whether one came twice.
 *
 * Role     nonce_set_watch makes mls_aead_seal tell this set of each use, in this whole process: all
 *          disks, all clones, all sessions. The key is known by its fingerprint.
 * Threads  Any; watch and release before and after all threads.
 */
#ifndef MLS_TEST_NONCE_SET_H
#define MLS_TEST_NONCE_SET_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct nonce_use {
	uint8_t key_id[16];
	uint8_t nonce[12];
	uint32_t used;		/* 0: the place is free */
};

struct nonce_set {
	struct nonce_use *uses;	/* open addressing; room is a power of two */
	size_t room, nr;
	uint64_t nr_repeated;
	struct nonce_use repeated;	/* the first that came twice */
	pthread_mutex_t lock;
};

void nonce_set_watch(struct nonce_set *set);
/* Stops watching and frees. */
void nonce_set_release(struct nonce_set *set);
size_t nonce_set_nr_keys(struct nonce_set *set);

#endif
