/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_nonce_audit.c - no nonce is used twice under one key, whatever image the host shows.
 *
 * Goal     doc/design.md 3: "every key that seals is derived from a salt that this process drew, and
 *          its nonces count in this process's memory".
 * Method   Several copies of one disk live at the same time, each on a device that can lose what wasn't
 *          flushed. Seeded steps write, write parts, discard, sync, reopen, cut the power (at a moment
 *          between operations, or at the Nth write of the device, where the disk that died goes on for
 *          some steps unaware, as a clone that the host keeps running), put an old image back under
 *          accept_rollback, clone, grow the disk, and add, change and remove key slots. Each seal of all of
 *          them goes to one set. The linker shows us the label of each key (-Wl,--wrap), so that the campaign
 *          can tell that every kind of key was among them.
 * Length   MLS_AUDIT_STEPS (default 6000), MLS_AUDIT_SEED.
 */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>

#include "1-crypto/aead.h"
#include "1-crypto/kdf.h"
#include "format/mlsdisk_format.h"
#include "tests/audit/nonce_set.h"
#include "tests/lib/check_run.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/tamper.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

/* Every kind of key that seals: design.md 3. The last is the wrapping key of a slot. */
static const char *const kinds[] = { "wal", "journal", "log", "data", "summary", "slot" };
#define NR_KINDS (sizeof kinds / sizeof *kinds)
static atomic_uint nr_of_kind[NR_KINDS];

#define NR_COPIES 3u
#define NR_IMAGES 4u
#define DISK_BYTES (2 * MIB)
#define BYTES_MAX (48u * MLS_BLOCK_BYTES)

/* One copy of the disk: its own BACKING, its own trusted store. */
struct copy {
	struct mls_block_dev *medium;
	struct crash_dev *dev;
	struct test_power power;
	struct test_store store;
	struct mls_open_opts opts;
	struct mls_disk *disk;
};

struct audit {
	struct disk_fixture f;
	struct nonce_set set;
	struct test_rand r;
	struct copy *copies[NR_COPIES];
	struct mls_block_dev *images[NR_IMAGES];	/* the host's collection of old images */
	uint8_t *data;
	uint64_t nr_crashes, nr_rollbacks, nr_clones, nr_reopens, nr_cleaned, nr_compactions, nr_flushes;
	uint64_t nr_grown, nr_slot_changes;
};

/* ---- Kinds of keys ---- */

static void saw_kind(const char *label)
{
	for (size_t i = 0; i < NR_KINDS; i++)
		if (strcmp(kinds[i], label) == 0) {
			atomic_fetch_add(&nr_of_kind[i], 1);
			return;
		}
	ck_abort_msg("a kind of key that design.md doesn't know: %s", label);
}

int __real_mls_key_derive_aead(const struct mls_keyring *keys, const char *label, const uint8_t *salt,
			       struct mls_aead **aead);
int __wrap_mls_key_derive_aead(const struct mls_keyring *keys, const char *label, const uint8_t *salt,
			       struct mls_aead **aead);
int __wrap_mls_key_derive_aead(const struct mls_keyring *keys, const char *label, const uint8_t *salt,
			       struct mls_aead **aead)
{
	saw_kind(label);
	return __real_mls_key_derive_aead(keys, label, salt, aead);
}

int __real_mls_keyring_wrap(const struct mls_keyring *keys, struct mls_aead *wrapping, const uint8_t *nonce,
			    const void *aad, size_t aad_bytes, uint8_t *wrapped, uint8_t *tag);
int __wrap_mls_keyring_wrap(const struct mls_keyring *keys, struct mls_aead *wrapping, const uint8_t *nonce,
			    const void *aad, size_t aad_bytes, uint8_t *wrapped, uint8_t *tag);
int __wrap_mls_keyring_wrap(const struct mls_keyring *keys, struct mls_aead *wrapping, const uint8_t *nonce,
			    const void *aad, size_t aad_bytes, uint8_t *wrapped, uint8_t *tag)
{
	saw_kind("slot");
	return __real_mls_keyring_wrap(keys, wrapping, nonce, aad, aad_bytes, wrapped, tag);
}

/* ---- Copies ---- */

static void copy_open(struct audit *a, struct copy *c)
{
	c->opts.inline_work = test_rand_chance(&a->r, 1, 2);
	ck_assert_int_eq(mls_disk_open(&c->disk, &c->dev->base, &c->store.base, &a->f.secret, &c->opts), 0);
	c->opts.accept_rollback = false;
}

static void copy_close(struct audit *a, struct copy *c)
{
	struct mls_disk_stat stat;

	mls_disk_stat(c->disk, &stat);
	a->nr_cleaned += stat.cleaned_segments;
	a->nr_compactions += stat.compactions;
	a->nr_flushes += stat.memtable_flushes;
	mls_disk_close(c->disk);	/* fails when the power is off */
	c->disk = NULL;
}

/* A copy with this BACKING, which it owns, and a register of this content. */
static struct copy *copy_new(struct audit *a, struct mls_block_dev *medium, const struct mls_trust *trust,
			     bool accept_rollback)
{
	struct copy *c = calloc(1, sizeof *c);

	ck_assert_ptr_nonnull(c);
	ck_assert_ptr_nonnull(medium);
	c->medium = medium;
	c->power.swallow = true;
	test_store_init(&c->store, &c->power);
	c->store.held = true;
	c->store.trust = *trust;
	c->dev = crash_dev_new(medium, &c->power);
	ck_assert_ptr_nonnull(c->dev);
	c->opts.memtable_records = 64;
	c->opts.accept_rollback = accept_rollback;
	copy_open(a, c);
	return c;
}

static void copy_free(struct audit *a, struct copy *c)
{
	if (!c)
		return;
	if (c->disk)
		copy_close(a, c);
	mls_block_dev_destroy(&c->dev->base);
	mls_block_dev_destroy(c->medium);
	free(c);
}

static struct mls_block_dev *dev_copy(struct mls_block_dev *from)
{
	struct tamper_image image;
	struct mls_block_dev *to = NULL;

	ck_assert_int_eq(mls_block_dev_mem_new(&to, from->nr_blocks), 0);
	tamper_image_take(&image, from);
	tamper_image_put_back(&image, to);
	tamper_image_release(&image);
	return to;
}

/* ---- What the user does ---- */

/* EIO, EPOISONED and ENOSPC are fine: the power may be off, and lost writes may come back to us. */
static void use(struct audit *a, struct copy *c)
{
	uint64_t at = test_rand_below(&a->r, DISK_BYTES - BYTES_MAX), what = test_rand_below(&a->r, 16);
	size_t bytes = test_rand_between(&a->r, 1, BYTES_MAX);
	int err;

	test_rand_fill(&a->r, a->data, 64);
	if (what < 8)
		err = mls_disk_write(c->disk, at / MLS_BLOCK_BYTES * MLS_BLOCK_BYTES, a->data,
				     (bytes / MLS_BLOCK_BYTES + 1) * MLS_BLOCK_BYTES);
	else if (what < 11)
		err = mls_disk_write(c->disk, at, a->data, bytes % 9000 + 1);
	else if (what < 12)
		err = mls_disk_discard(c->disk, at, bytes);
	else if (what < 13)
		err = mls_disk_read(c->disk, at, a->data, bytes);
	else
		err = mls_disk_sync(c->disk);
	ck_assert_msg(err != MLS_EAUTH && err != MLS_EINVAL, "operation %d, power %d, inline %d: %s", (int)what,
		      !atomic_load(&c->power.off), c->opts.inline_work, mls_strerror(err));
}

/* ---- What the world does ---- */

/* What the crash left gets a machine of its own, whose register holds what the dead one's holds. */
static struct copy *successor(struct audit *a, struct copy *dead)
{
	struct mls_trust trust = dead->store.trust;

	a->nr_crashes++;
	return copy_new(a, crash_dev_image(dead->dev, test_rand_u64(&a->r)), &trust, false);
}

/* The machine dies. What runs on it doesn't notice and goes on sealing for a while, as a clone that the host
 * kept running would; then its successor opens what the crash left. */
static void crash(struct audit *a, unsigned i)
{
	struct copy *dead = a->copies[i];

	atomic_store(&dead->power.off, true);
	for (uint64_t n = test_rand_below(&a->r, 4); n > 0; n--)
		use(a, dead);
	a->copies[i] = successor(a, dead);
	for (uint64_t n = test_rand_below(&a->r, 4); n > 0; n--)
		use(a, dead);
	copy_free(a, dead);
}

/* Power goes off at some operation of the device, perhaps within a sync; see the crash at a later step. */
static void arm_power(struct audit *a, struct copy *c)
{
	c->store.keep_at_cut = test_rand_chance(&a->r, 1, 2);
	test_power_on(&c->power, test_rand_between(&a->r, 1, 60));
}

/* A few blocks more; the power may go off meanwhile. */
static void grow(struct audit *a, struct copy *c)
{
	struct mls_disk_stat stat;
	int err;

	mls_disk_stat(c->disk, &stat);
	err = mls_disk_resize(c->disk, stat.disk_bytes + test_rand_between(&a->r, 1, 8) * MLS_BLOCK_BYTES);
	ck_assert(err == 0 || err == MLS_EIO || err == MLS_EPOISONED);
	a->nr_grown += err == 0;
}

/* The same secrets again and again, in copies that know nothing of each other. The disk is closed. */
static void change_slots(struct audit *a, struct copy *c)
{
	static const struct mls_secret second = { "another key that is 32 bytes ..", 32, false };
	int err;

	switch (test_rand_below(&a->r, 3)) {
	case 0:
		err = mls_key_add(&c->dev->base, &a->f.secret, &second, 1, "second", NULL);
		break;
	case 1:
		err = mls_key_change(&c->dev->base, &a->f.secret, &second, 1, "changed", NULL);
		break;
	default:
		err = mls_key_remove(&c->dev->base, &a->f.secret, 1, NULL);
	}
	ck_assert_msg(err == 0 || err == MLS_EEXIST || err == MLS_ENOENT || err == MLS_EIO, "%s", mls_strerror(err));
	a->nr_slot_changes += err == 0;
}

static void reopen(struct audit *a, unsigned i)
{
	struct copy *c = a->copies[i];

	copy_close(a, c);
	if (!atomic_load(&c->power.off) && test_rand_chance(&a->r, 1, 2))
		change_slots(a, c);
	if (!atomic_load(&c->power.off)) {
		copy_open(a, c);
		a->nr_reopens++;
		return;
	}
	a->copies[i] = successor(a, c);
	copy_free(a, c);
}

static void keep_image(struct audit *a, struct copy *c)
{
	uint64_t i = test_rand_below(&a->r, NR_IMAGES);

	mls_block_dev_destroy(a->images[i]);
	a->images[i] = crash_dev_image(c->dev, test_rand_u64(&a->r));
	ck_assert_ptr_nonnull(a->images[i]);
}

/* The user restores a backup; the register stays, or is the one of another copy. */
static void roll_back(struct audit *a, unsigned i)
{
	struct mls_block_dev *old = a->images[test_rand_below(&a->r, NR_IMAGES)];
	struct mls_trust trust = a->copies[test_rand_below(&a->r, NR_COPIES)]->store.trust;

	if (!old)
		return;
	copy_free(a, a->copies[i]);
	a->copies[i] = copy_new(a, dev_copy(old), &trust, true);
	a->nr_rollbacks++;
}

/* One more machine runs what another one runs. */
static void clone(struct audit *a, unsigned i)
{
	struct copy *from = a->copies[(i + 1) % NR_COPIES];
	struct mls_trust trust = from->store.trust;
	struct mls_block_dev *image = crash_dev_image(from->dev, test_rand_u64(&a->r));

	copy_free(a, a->copies[i]);
	a->copies[i] = copy_new(a, image, &trust, true);
	a->nr_clones++;
}

static void step(struct audit *a)
{
	unsigned i = (unsigned)test_rand_below(&a->r, NR_COPIES);
	struct copy *c = a->copies[i];
	uint64_t what = test_rand_below(&a->r, 400);

	if (atomic_load(&c->power.off) || what < 4)
		crash(a, i);
	else if (what < 10)
		arm_power(a, c);
	else if (what < 16)
		reopen(a, i);
	else if (what < 20)
		keep_image(a, c);
	else if (what < 23)
		roll_back(a, i);
	else if (what < 26)
		clone(a, i);
	else if (what < 29)
		grow(a, c);
	else
		use(a, c);
}

START_TEST(no_nonce_is_used_twice_over_crashes_rollbacks_and_clones)
{
	uint64_t seed = test_env_u64("MLS_AUDIT_SEED", 1), nr_steps = test_env_u64("MLS_AUDIT_STEPS", 6000);
	struct audit a = { .nr_crashes = 0 };

	a.data = calloc(1, BYTES_MAX + MLS_BLOCK_BYTES);
	ck_assert_ptr_nonnull(a.data);
	test_rand_seed(&a.r, seed);
	nonce_set_watch(&a.set);
	fixture_init(&a.f, DISK_BYTES, 0);
	for (unsigned i = 0; i < NR_COPIES; i++)
		a.copies[i] = copy_new(&a, dev_copy(a.f.dev), &a.f.store.trust, false);
	for (uint64_t n = 0; n < nr_steps; n++) {
		step(&a);
		ck_assert_msg(a.set.nr_repeated == 0, "MLS_AUDIT_SEED=%llu: a nonce came twice at step %llu",
			      (unsigned long long)seed, (unsigned long long)n);
	}
	for (unsigned i = 0; i < NR_COPIES; i++)
		copy_free(&a, a.copies[i]);
	ck_assert_uint_eq(a.set.nr_repeated, 0);
	for (size_t i = 0; i < NR_KINDS; i++)
		printf("%s%u %s", i ? ", " : "keys: ", atomic_load(&nr_of_kind[i]), kinds[i]);
	printf("\nseals %zu under %zu keys; crashes %llu, rollbacks %llu, clones %llu, reopens %llu, grown %llu, "
	       "slots changed %llu; memtable flushes %llu, compactions %llu, cleaned segments %llu\n",
	       a.set.nr, nonce_set_nr_keys(&a.set), (unsigned long long)a.nr_crashes,
	       (unsigned long long)a.nr_rollbacks, (unsigned long long)a.nr_clones,
	       (unsigned long long)a.nr_reopens, (unsigned long long)a.nr_grown,
	       (unsigned long long)a.nr_slot_changes, (unsigned long long)a.nr_flushes,
	       (unsigned long long)a.nr_compactions, (unsigned long long)a.nr_cleaned);
	for (size_t i = 0; i < NR_KINDS && nr_steps >= 6000; i++)
		ck_assert_msg(atomic_load(&nr_of_kind[i]) > 0, "no key of kind %s", kinds[i]);
	if (nr_steps >= 6000)	/* the campaign went where it should */
		ck_assert(a.nr_grown && a.nr_slot_changes && a.nr_crashes && a.nr_rollbacks && a.nr_clones && a.nr_reopens && a.nr_flushes &&
			  a.nr_compactions && a.nr_cleaned);
	for (unsigned i = 0; i < NR_IMAGES; i++)
		mls_block_dev_destroy(a.images[i]);
	fixture_release(&a.f);
	nonce_set_release(&a.set);
	free(a.data);
}
END_TEST

/* The audit itself can fail: it hears of each seal, also under a second expansion of the same key. */
START_TEST(the_audit_sees_a_repeated_nonce)
{
	uint8_t key[MLS_KEY_BYTES] = { 1 }, nonce[MLS_NONCE_BYTES] = { 0 }, byte = 0, tag[MLS_TAG_BYTES];
	struct nonce_set set;
	struct mls_aead *one, *two;

	nonce_set_watch(&set);
	ck_assert_int_eq(mls_aead_new(&one, key), 0);
	ck_assert_int_eq(mls_aead_new(&two, key), 0);
	ck_assert_int_eq(mls_aead_seal(one, nonce, NULL, 0, &byte, 1, &byte, tag), 0);
	nonce[0] = 1;
	ck_assert_int_eq(mls_aead_seal(one, nonce, NULL, 0, &byte, 1, &byte, tag), 0);
	ck_assert_uint_eq(set.nr_repeated, 0);
	ck_assert_int_eq(mls_aead_seal(two, nonce, NULL, 0, &byte, 1, &byte, tag), 0);
	ck_assert_uint_eq(set.nr_repeated, 1);
	ck_assert_uint_eq(set.nr, 2);
	ck_assert_uint_eq(nonce_set_nr_keys(&set), 1);
	mls_aead_free(one);
	mls_aead_free(two);
	nonce_set_release(&set);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nonce audit");
	TCase *tc = tcase_create("nonces");

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, the_audit_sees_a_repeated_nonce);
	tcase_add_test(tc, no_nonce_is_used_twice_over_crashes_rollbacks_and_clones);
	suite_add_tcase(suite, tc);
	if (!getenv("MLS_LOUD"))
		mls_set_logger(test_log_quiet, NULL);
	return check_run(suite);
}
