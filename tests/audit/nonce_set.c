/* SPDX-License-Identifier: MPL-2.0 */
/*
 * nonce_set.c - see nonce_set.h. A hash set of 32-byte entries: some ten million uses fit a test.
 */
#include "tests/audit/nonce_set.h"

#include <stdlib.h>
#include <string.h>

#include "1-crypto/aead.h"
#include "base/endian.h"
#include "base/err.h"

#define ROOM_FIRST ((size_t)1 << 16)

/* Fingerprints are SHA-256: any of their bits are as good as a hash. */
static size_t hash(const struct nonce_use *use)
{
	return (size_t)(mls_get_le64(use->key_id) ^
			mls_get_le64(use->nonce + 4) * 0x9e3779b97f4a7c15 ^
			mls_get_le32(use->nonce) * (uint64_t)0xc2b2ae3d27d4eb4f);
}

static bool same(const struct nonce_use *a, const struct nonce_use *b)
{
	return memcmp(a->key_id, b->key_id, sizeof a->key_id) == 0 &&
	       memcmp(a->nonce, b->nonce, sizeof a->nonce) == 0;
}

/* The place of use, or the free one where it belongs. */
static struct nonce_use *find(struct nonce_set *set, const struct nonce_use *use)
{
	size_t at = hash(use) >> 3;

	for (;; at++) {
		struct nonce_use *place = &set->uses[at & (set->room - 1)];

		if (!place->used || same(place, use))
			return place;
	}
}

static void grow(struct nonce_set *set)
{
	struct nonce_use *old = set->uses;
	size_t room = set->room;

	set->room = room ? room * 2 : ROOM_FIRST;
	set->uses = calloc(set->room, sizeof *set->uses);
	MLS_INVARIANT(set->uses != NULL);
	for (size_t i = 0; i < room; i++)
		if (old[i].used)
			*find(set, &old[i]) = old[i];
	free(old);
}

static void saw(void *arg, const uint8_t key_id[16], const uint8_t nonce[MLS_NONCE_BYTES])
{
	struct nonce_use use = { .used = 1 }, *place;
	struct nonce_set *set = arg;

	memcpy(use.key_id, key_id, sizeof use.key_id);
	memcpy(use.nonce, nonce, sizeof use.nonce);
	pthread_mutex_lock(&set->lock);
	if (set->nr * 2 >= set->room)
		grow(set);
	place = find(set, &use);
	if (place->used) {
		if (set->nr_repeated++ == 0)
			set->repeated = use;
	} else {
		*place = use;
		set->nr++;
	}
	pthread_mutex_unlock(&set->lock);
}

void nonce_set_watch(struct nonce_set *set)
{
	memset(set, 0, sizeof *set);
	pthread_mutex_init(&set->lock, NULL);
	mls_aead_set_audit(saw, set);
}

void nonce_set_release(struct nonce_set *set)
{
	mls_aead_set_audit(NULL, NULL);
	pthread_mutex_destroy(&set->lock);
	free(set->uses);
}

size_t nonce_set_nr_keys(struct nonce_set *set)
{
	struct nonce_set keys = { .lock = PTHREAD_MUTEX_INITIALIZER };
	static const uint8_t none[MLS_NONCE_BYTES];
	size_t nr;

	for (size_t i = 0; i < set->room; i++)
		if (set->uses[i].used)
			saw(&keys, set->uses[i].key_id, none);
	nr = keys.nr;
	free(keys.uses);
	return nr;
}
