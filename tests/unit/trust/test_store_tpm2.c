/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_store_tpm2.c - the register in a TPM: swtpm, a whole TPM 2.0, started by each test.
 *
 * Between the store and the TPM stands a proxy, the adversary on the bus: it records, changes, answers
 * in the TPM's place, replays, and cuts the power. What was advanced to is what is read, or the value
 * before if the power went, or an error; never something else.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>		/* memmem */
#endif
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tss2/tss2_esys.h>
#include <tss2/tss2_tctildr.h>

#include "1-crypto/kdf.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"
#include "tests/unit/trust/tpm_bus.h"
#include "trust/store.h"
#include "trust/tpm2_nv.h"

#define INDEX 0x01800001u
#define URI "tpm2:0x01800001"
#define NV_BYTES (2 * sizeof(struct mls_trust_nv_slot_disk))

static const uint8_t uuid_a[16] = "disk A", uuid_b[16] = "disk B", key_a[32] = "key A", key_b[32] = "key B";

/* ---- What is logged ---- */

static char last_message[1024];

static void keep_message(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	snprintf(last_message, sizeof last_message, "%s", message);
}

static void setup(void)
{
	char conf[128];

	mls_set_logger(keep_message, NULL);
	setenv("TSS2_LOG", "all+none", 1);
	unsetenv("MLSDISK_TPM2_OWNER_AUTH_FILE");
	tpm_make_dir();
	tpm_start();
	bus_start();
	snprintf(conf, sizeof conf, "swtpm:path=%s/bus", tpm_dir);
	setenv("MLSDISK_TCTI", conf, 1);
}

static void teardown(void)
{
	char command[128];

	bus_end();
	tpm_kill();
	snprintf(command, sizeof command, "rm -r %s", tpm_dir);
	ck_assert_int_eq(system(command), 0);
	mls_set_logger(NULL, NULL);
}

/* ---- The store ---- */

static struct mls_trusted_store *open_store(const uint8_t uuid[16], const uint8_t key[32])
{
	struct mls_trusted_store *store = NULL;
	int err = mls_trusted_store_open(&store, URI, uuid);

	ck_assert_msg(err == 0, "open: %d: %s", err, last_message);
	ck_assert_int_eq(store->ops->set_key(store, key), 0);
	return store;
}

static struct mls_trust trust_of(const uint8_t uuid[16], uint64_t sync_id)
{
	struct mls_trust trust = { .sync_id = sync_id };

	memcpy(trust.uuid, uuid, 16);
	memset(trust.digest, (int)(sync_id * 7), sizeof trust.digest);
	return trust;
}

static int advance(struct mls_trusted_store *store, const uint8_t uuid[16], uint64_t sync_id)
{
	struct mls_trust trust = trust_of(uuid, sync_id);

	return store->ops->advance(store, &trust);
}

/* What a process that opens the store now reads: an error, or the sync id of a value that is whole. */
static int64_t read_anew(const uint8_t uuid[16], const uint8_t key[32])
{
	struct mls_trusted_store *store = NULL;
	struct mls_trust got, want;
	int err = mls_trusted_store_open(&store, URI, uuid);

	if (!err)
		err = store->ops->set_key(store, key);
	if (!err)
		err = store->ops->read(store, &got);
	mls_trusted_store_destroy(store);
	if (err)
		return err;
	want = trust_of(uuid, got.sync_id);
	ck_assert_mem_eq(&got, &want, sizeof got);
	return (int64_t)got.sync_id;
}

static void make_store(uint64_t sync_id_from, uint64_t sync_id_to)
{
	struct mls_trusted_store *store = open_store(uuid_a, key_a);

	for (uint64_t id = sync_id_from; id <= sync_id_to; id++)
		ck_assert_int_eq(advance(store, uuid_a, id), 0);
	mls_trusted_store_destroy(store);
}

/* The index, opened with disk A's authorization, to do with it what the store wouldn't. */
static struct mls_tpm2_nv *open_index(void)
{
	uint8_t auth[MLS_TPM2_AUTH_BYTES], label[MLS_TPM2_LABEL_BYTES];
	struct mls_tpm2_nv *nv;

	ck_assert_int_eq(mls_tpm2_nv_open(&nv, INDEX), 0);
	ck_assert_int_eq(mls_hkdf_sha256(key_a, 32, uuid_a, 16, "tpm2 authorization", auth), 0);
	auth[31] |= 1;
	mls_tpm2_nv_set_auth(nv, auth);
	ck_assert_int_eq(mls_tpm2_nv_look(nv, NV_BYTES, label), 0);
	return nv;
}

/* ---- What the owner can do ---- */

struct owner {
	TSS2_TCTI_CONTEXT *tcti;
	ESYS_CONTEXT *esys;
};

static void owner_begin(struct owner *o)
{
	ck_assert_uint_eq(Tss2_TctiLdr_Initialize(getenv("MLSDISK_TCTI"), &o->tcti), 0);
	ck_assert_uint_eq(Esys_Initialize(&o->esys, o->tcti, NULL), 0);
}

static void owner_end(struct owner *o)
{
	Esys_Finalize(&o->esys);
	Tss2_TctiLdr_Finalize(&o->tcti);
}

static void undefine(void)
{
	struct owner o;
	ESYS_TR nv;

	owner_begin(&o);
	ck_assert_uint_eq(Esys_TR_FromTPMPublic(o.esys, INDEX, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &nv), 0);
	ck_assert_uint_eq(Esys_NV_UndefineSpace(o.esys, ESYS_TR_RH_OWNER, nv, ESYS_TR_PASSWORD, ESYS_TR_NONE,
						ESYS_TR_NONE),
			  0);
	owner_end(&o);
}

static void set_owner_password(const char *password)
{
	TPM2B_AUTH auth = { .size = (UINT16)strlen(password) };
	struct owner o;

	memcpy(auth.buffer, password, auth.size);
	owner_begin(&o);
	ck_assert_uint_eq(Esys_HierarchyChangeAuth(o.esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE,
						   ESYS_TR_NONE, &auth),
			  0);
	owner_end(&o);
}

/* ---- Honest TPM ---- */

START_TEST(holds_the_last_advance)
{
	for (int id = 1; id < 5; id++) {
		make_store((uint64_t)id, (uint64_t)id);
		ck_assert_int_eq(read_anew(uuid_a, key_a), id);
	}
	make_store(5, 30);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 30);
	make_store(7, 7);	/* a rollback that the user accepted */
	ck_assert_int_eq(read_anew(uuid_a, key_a), 7);
	tpm_kill();
	tpm_start();
	ck_assert_int_eq(read_anew(uuid_a, key_a), 7);
}
END_TEST

START_TEST(nothing_is_made_before_the_first_advance)
{
	struct mls_trusted_store *store;
	struct mls_trust trust = trust_of(uuid_a, 1);

	ck_assert_int_eq(read_anew(uuid_a, key_a), MLS_ENOENT);
	ck_assert_int_eq(read_anew(uuid_b, key_b), MLS_ENOENT);
	ck_assert_int_eq(mls_trusted_store_open(&store, URI, uuid_a), 0);
	ck_assert_int_eq(store->ops->read(store, &trust), MLS_EINVAL);	/* wants a key */
	ck_assert_int_eq(store->ops->advance(store, &trust), MLS_EINVAL);
	mls_trusted_store_destroy(store);
	make_store(1, 1);
	undefine();
	ck_assert_int_eq(read_anew(uuid_a, key_a), MLS_ENOENT);
	make_store(2, 2);	/* --accept-rollback after a lost store */
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
}
END_TEST

START_TEST(index_of_another_disk_is_left_alone)
{
	struct mls_trusted_store *store = open_store(uuid_b, key_b), *refused = NULL;

	make_store(1, 2);	/* comes into being while the other one is open */
	ck_assert_int_eq(advance(store, uuid_b, 9), MLS_ESTALE);	/* format: without a read */
	ck_assert_int_eq(advance(store, uuid_a, 9), MLS_ESTALE);
	mls_trusted_store_destroy(store);
	ck_assert_int_eq(mls_trusted_store_open(&refused, URI, uuid_b), MLS_ESTALE);
	ck_assert_ptr_null(refused);
	ck_assert_ptr_nonnull(strstr(last_message, "6469736b-2041"));	/* "disk A" */
	ck_assert_ptr_nonnull(strstr(last_message, "nvundefine 0x01800001"));
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
}
END_TEST

START_TEST(wrong_key_is_told)
{
	make_store(1, 2);
	ck_assert_int_eq(read_anew(uuid_a, key_b), MLS_ESTALE);
	ck_assert_ptr_nonnull(strstr(last_message, "tpm2_nvundefine 0x01800001"));
	for (int i = 0; i < 40; i++)	/* nobody can lock the disk out by guessing */
		ck_assert_int_eq(read_anew(uuid_a, key_b), MLS_ESTALE);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
}
END_TEST

/* Somebody else's index: other attributes, another size, another label. */
START_TEST(index_that_is_no_store_is_left_alone)
{
	uint8_t auth[MLS_TPM2_AUTH_BYTES] = { 1 }, label[MLS_TPM2_LABEL_BYTES] = "something else";
	struct mls_trusted_store *refused = NULL;
	struct mls_tpm2_nv *nv;

	for (unsigned i = 0; i < 2; i++) {
		uint16_t bytes = i ? NV_BYTES : 64;

		ck_assert_int_eq(mls_tpm2_nv_open(&nv, INDEX), 0);
		mls_tpm2_nv_set_auth(nv, auth);
		ck_assert_int_eq(mls_tpm2_nv_define(nv, bytes, label), 0);
		mls_tpm2_nv_close(nv);
		ck_assert_int_eq(mls_trusted_store_open(&refused, URI, uuid_a), MLS_ESTALE);
		ck_assert_ptr_null(refused);
		ck_assert_ptr_nonnull(strstr(last_message, "left alone"));
		undefine();
	}
}
END_TEST

/* The owner may undefine the index and make it anew, with our label; but he doesn't know the value. */
START_TEST(index_made_anew_by_the_owner_is_refused)
{
	uint8_t auth[MLS_TPM2_AUTH_BYTES] = { 1 }, label[MLS_TPM2_LABEL_BYTES];
	struct mls_trusted_store *store;
	struct mls_tpm2_nv *nv;

	make_store(1, 2);
	ck_assert_int_eq(mls_tpm2_nv_open(&nv, INDEX), 0);
	ck_assert_int_eq(mls_tpm2_nv_look(nv, NV_BYTES, label), 0);
	mls_tpm2_nv_close(nv);
	undefine();
	ck_assert_int_eq(mls_tpm2_nv_open(&nv, INDEX), 0);
	mls_tpm2_nv_set_auth(nv, auth);
	ck_assert_int_eq(mls_tpm2_nv_define(nv, NV_BYTES, label), 0);
	mls_tpm2_nv_close(nv);
	ck_assert_int_eq(read_anew(uuid_a, key_a), MLS_ESTALE);
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(advance(store, uuid_a, 3), MLS_ESTALE);
	mls_trusted_store_destroy(store);
}
END_TEST

START_TEST(damaged_slots_are_told)
{
	struct mls_trusted_store *store;
	struct mls_trust got;
	struct mls_tpm2_nv *nv;

	make_store(1, 4);	/* slot 0: 1, 3; slot 1: 2, 4 */
	nv = open_index();
	ck_assert_int_eq(mls_tpm2_nv_write(nv, 96 + 50, "?", 1), 0);
	mls_tpm2_nv_close(nv);
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(store->ops->read(store, &got), 0);
	ck_assert_uint_eq(got.sync_id, 3);
	ck_assert_uint_eq(store->ops->nr_damaged(store), 1);
	ck_assert_int_eq(store->ops->advance(store, &got), 0);
	ck_assert_int_eq(store->ops->read(store, &got), 0);
	ck_assert_uint_eq(got.sync_id, 3);
	ck_assert_uint_eq(store->ops->nr_damaged(store), 0);
	mls_trusted_store_destroy(store);

	nv = open_index();
	ck_assert_int_eq(mls_tpm2_nv_write(nv, 50, "?", 1), 0);
	ck_assert_int_eq(mls_tpm2_nv_write(nv, 96 + 50, "?", 1), 0);
	mls_tpm2_nv_close(nv);
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(store->ops->read(store, &got), MLS_EAUTH);
	ck_assert_int_eq(advance(store, uuid_a, 9), 0);	/* --accept-rollback */
	mls_trusted_store_destroy(store);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 9);
}
END_TEST

START_TEST(second_opener_is_kept_out)
{
	struct mls_trusted_store *first = open_store(uuid_a, key_a), *second = NULL;

	ck_assert_int_eq(mls_trusted_store_open(&second, URI, uuid_a), MLS_EBUSY);
	ck_assert_ptr_null(second);
	mls_trusted_store_destroy(first);
	ck_assert_int_eq(read_anew(uuid_a, key_a), MLS_ENOENT);
}
END_TEST

START_TEST(no_tpm_is_told)
{
	struct mls_trusted_store *store = NULL;

	setenv("MLSDISK_TCTI", "swtpm:path=/nowhere/tpm", 1);
	ck_assert_int_eq(mls_trusted_store_open(&store, URI, uuid_a), MLS_EIO);
	ck_assert_ptr_nonnull(strstr(last_message, "no TPM at swtpm:path=/nowhere/tpm"));
	setenv("TPM2TOOLS_TCTI", "device:/nowhere/tpm", 1);
	setenv("MLSDISK_TCTI", "", 1);
	ck_assert_int_eq(mls_trusted_store_open(&store, URI, uuid_a), MLS_EIO);
	ck_assert_ptr_nonnull(strstr(last_message, "device:/nowhere/tpm"));
	ck_assert_ptr_null(store);
}
END_TEST

START_TEST(index_out_of_range_is_misuse)
{
	static const char *const uris[] = { "tpm2:", "tpm2:1", "tpm2:0x02000000", "tpm2:0x00ffffff", "tpm2:0x01800001x",
					    "tpm2: 0x01800001", "tpm2:-1", "tpm2:99999999999999999999" };
	struct mls_trusted_store *store = NULL;

	for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
		ck_assert_int_eq(mls_trusted_store_open(&store, uris[i], uuid_a), MLS_EINVAL);
		ck_assert_ptr_nonnull(strstr(last_message, "0x01800001"));
	}
	ck_assert_ptr_null(store);
}
END_TEST

START_TEST(owner_with_a_password)
{
	struct mls_trusted_store *store;
	char path[128];
	FILE *f;

	set_owner_password("horse");
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(advance(store, uuid_a, 1), MLS_EIO);
	ck_assert_ptr_nonnull(strstr(last_message, "MLSDISK_TPM2_OWNER_AUTH_FILE"));
	tpm_path(path, "owner");
	setenv("MLSDISK_TPM2_OWNER_AUTH_FILE", path, 1);
	ck_assert_int_eq(advance(store, uuid_a, 1), MLS_EIO);	/* no such file */
	f = fopen(path, "w");
	fputs("house", f);
	fclose(f);
	ck_assert_int_eq(advance(store, uuid_a, 1), MLS_EIO);
	f = fopen(path, "w");
	fputs("horse", f);
	fclose(f);
	ck_assert_int_eq(advance(store, uuid_a, 1), 0);
	mls_trusted_store_destroy(store);
	unsetenv("MLSDISK_TPM2_OWNER_AUTH_FILE");	/* needed for the definition only */
	make_store(2, 3);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 3);
}
END_TEST

/* ---- The bus ---- */

START_TEST(nothing_secret_crosses_the_bus)
{
	uint8_t auth[MLS_TPM2_AUTH_BYTES];
	struct mls_trust trust = trust_of(uuid_a, 5);

	make_store(1, 5);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 5);
	ck_assert_int_eq(mls_hkdf_sha256(key_a, 32, uuid_a, 16, "tpm2 authorization", auth), 0);
	ck_assert_uint_gt(bus.traffic_bytes, 1000);
	ck_assert_ptr_nonnull(memmem(bus.traffic, bus.traffic_bytes, uuid_a, 16));	/* the label */
	ck_assert_ptr_null(memmem(bus.traffic, bus.traffic_bytes, auth, 16));
	ck_assert_ptr_null(memmem(bus.traffic, bus.traffic_bytes, trust.digest, 16));
}
END_TEST

/* Goal: a changed answer is never believed. Method: each byte of the answer to the read. */
START_TEST(changed_answers_are_refused)
{
	size_t at, bytes = 1;

	make_store(1, 2);
	for (at = 0; at < bytes; at++) {
		int64_t got;

		bus_set_prank(FLIP_ANSWER, CC_NV_READ, 1, at);
		got = read_anew(uuid_a, key_a);
		ck_assert_msg(bus_played(), "byte %zu: %d: %s", at, (int)got, last_message);
		ck_assert_msg(got < 0 && got != MLS_ENOENT, "byte %zu: %d", at, (int)got);
		bytes = bus.last_bytes;
	}
	ck_assert_uint_gt(at, NV_BYTES);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
}
END_TEST

/* Goal: a changed write either doesn't happen, and is told, or is the one that was meant. */
START_TEST(changed_writes_are_refused)
{
	struct mls_trusted_store *store;
	int64_t was = 1;
	size_t at, bytes = 1;

	make_store(1, 1);
	for (at = 6; at == 6 || at < bytes; at++) {	/* before it: the length of the message */
		int64_t got;
		int err;

		store = open_store(uuid_a, key_a);
		bus_set_prank(FLIP_COMMAND, CC_NV_WRITE, 1, at);
		err = advance(store, uuid_a, (uint64_t)was + 1);
		ck_assert(bus_played());
		bytes = bus.last_bytes;
		bus_set_prank(HONEST, 0, 0, 0);
		mls_trusted_store_destroy(store);
		got = read_anew(uuid_a, key_a);
		ck_assert_msg(err ? got == was : got == was + 1, "byte %zu: %d, then %d", at, err, (int)got);
		was = got;
	}
	ck_assert_uint_gt(at, 96);
}
END_TEST

/* Goal: what the TPM said earlier is of no use later, in this session or another. */
START_TEST(replayed_answers_are_refused)
{
	struct mls_trusted_store *store;
	struct mls_trust got;

	make_store(1, 2);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
	make_store(3, 3);
	bus_set_prank(REPLAY, CC_NV_READ, 1, 0);
	ck_assert_int_lt(read_anew(uuid_a, key_a), 0);
	ck_assert(bus_played());
	bus_set_prank(HONEST, 0, 0, 0);
	store = open_store(uuid_a, key_a);
	ck_assert_int_eq(store->ops->read(store, &got), 0);
	ck_assert_int_eq(advance(store, uuid_a, 4), 0);
	bus_set_prank(REPLAY, CC_NV_READ, 1, 0);
	ck_assert_int_lt(store->ops->read(store, &got), 0);
	mls_trusted_store_destroy(store);
}
END_TEST

/* Goal: "yes, written", said by somebody else, isn't believed. */
START_TEST(writes_that_the_bus_acknowledges_are_refused)
{
	struct mls_trusted_store *store;

	make_store(1, 2);
	store = open_store(uuid_a, key_a);
	bus.code = 0;
	bus_set_prank(ANSWER_CODE, CC_NV_WRITE, 1, 0);
	ck_assert_int_eq(advance(store, uuid_a, 3), MLS_EIO);
	mls_trusted_store_destroy(store);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
}
END_TEST

START_TEST(patience_while_the_tpm_asks_for_it)
{
	static const uint32_t codes[] = { TPM2_RC_NV_RATE, TPM2_RC_RETRY, TPM2_RC_NV_UNAVAILABLE, TPM2_RC_TESTING };
	uint64_t id = 3;

	make_store(1, 2);
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
		struct mls_trusted_store *store = open_store(uuid_a, key_a);

		bus.code = codes[i];
		bus_set_prank(ANSWER_CODE, CC_NV_WRITE, 3, 0);
		ck_assert_int_eq(advance(store, uuid_a, id), 0);
		ck_assert_uint_eq(bus.nr, 0);
		mls_trusted_store_destroy(store);
		ck_assert_int_eq(read_anew(uuid_a, key_a), (int64_t)id++);
	}
}
END_TEST

START_TEST(refusals_of_the_tpm_are_told)
{
	static const struct { uint32_t code; int err; const char *text; } rows[] = {
		{ TPM2_RC_LOCKOUT, MLS_EIO, "dictionarylockout" },
		{ TPM2_RC_NV_LOCKED, MLS_EIO, "locked until" },
		{ TPM2_RC_NV_SPACE, MLS_EIO, "no space" },
		{ TPM2_RC_FAILURE, MLS_EIO, "failure" },
		{ TPM2_RC_BAD_AUTH | TPM2_RC_S | TPM2_RC_1, MLS_ESTALE, "tpm2_nvundefine" },
	};

	make_store(1, 2);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct mls_trusted_store *store = open_store(uuid_a, key_a);

		bus.code = rows[i].code;
		bus_set_prank(ANSWER_CODE, CC_NV_WRITE, 1, 0);
		ck_assert_int_eq(advance(store, uuid_a, 3), rows[i].err);
		ck_assert_msg(strstr(last_message, rows[i].text) != NULL, "%s", last_message);
		mls_trusted_store_destroy(store);
	}
	ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
}
END_TEST

/* Goal: what killed processes left in the TPM doesn't keep others out. Method: commands that never come. */
START_TEST(sessions_of_the_dead_are_cleared)
{
	for (int i = 0; i < 8; i++) {
		struct mls_trusted_store *store = open_store(uuid_a, key_a);

		bus_set_prank(CUT_BEFORE, i ? CC_NV_WRITE : 0x12a, 1, 0);
		ck_assert_int_eq(advance(store, uuid_a, 3), MLS_EIO);
		ck_assert(bus_played());
		bus_set_prank(HONEST, 0, 0, 0);
		mls_trusted_store_destroy(store);
		make_store(2, 2);
		ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
	}
}
END_TEST

/* ---- Power ---- */

/* The connection goes before or after the TPM has the N-th command of this kind, and the TPM's power with it. */
static void cut_and_restart(enum prank prank, uint32_t code, uint64_t sync_id)
{
	struct mls_trusted_store *store = open_store(uuid_a, key_a);

	bus_set_prank(prank, code, 1, 0);
	ck_assert_int_eq(advance(store, uuid_a, sync_id), MLS_EIO);
	ck_assert(bus_played());
	mls_trusted_store_destroy(store);
	bus_set_prank(HONEST, 0, 0, 0);
	tpm_kill();
	tpm_start();
}

START_TEST(power_cut_leaves_old_or_new)
{
	make_store(1, 2);
	for (int i = 0; i < 4; i++) {
		cut_and_restart(CUT_BEFORE, CC_NV_WRITE, 3);
		ck_assert_int_eq(read_anew(uuid_a, key_a), 2);
	}
	for (int id = 3; id < 7; id++) {
		cut_and_restart(CUT_AFTER, CC_NV_WRITE, (uint64_t)id);
		ck_assert_int_eq(read_anew(uuid_a, key_a), id);
	}
	make_store(7, 8);
	ck_assert_int_eq(read_anew(uuid_a, key_a), 8);
}
END_TEST

/* While the first value is made: none, or it. */
START_TEST(power_cut_while_it_is_made)
{
	static const uint32_t codes[] = { 0x131, 0x176, 0x12a, CC_NV_WRITE };	/* CreatePrimary ... DefineSpace */

	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
		cut_and_restart(CUT_BEFORE, codes[i], 1);
		ck_assert_int_eq(read_anew(uuid_a, key_a), MLS_ENOENT);
		cut_and_restart(CUT_AFTER, codes[i], 1);
		if (codes[i] != CC_NV_WRITE)
			ck_assert_int_eq(read_anew(uuid_a, key_a), MLS_ENOENT);
		if (codes[i] == 0x12a)
			undefine();
	}
	ck_assert_int_eq(read_anew(uuid_a, key_a), 1);
}
END_TEST

/* A torn write of a slot, should a TPM not be atomic: the other slot counts. */
START_TEST(torn_slot_leaves_the_other)
{
	struct mls_trust_nv_slot_disk before[2], after[2];
	struct mls_tpm2_nv *nv;

	make_store(1, 4);
	nv = open_index();
	ck_assert_int_eq(mls_tpm2_nv_read(nv, before, sizeof before), 0);
	mls_tpm2_nv_close(nv);
	make_store(5, 5);
	nv = open_index();
	ck_assert_int_eq(mls_tpm2_nv_read(nv, after, sizeof after), 0);
	ck_assert_mem_eq(&before[1], &after[1], sizeof after[1]);
	mls_tpm2_nv_close(nv);
	for (uint16_t cut = 1; cut <= sizeof after[0]; cut += cut < 88 ? 8 : 1) {
		nv = open_index();
		ck_assert_int_eq(mls_tpm2_nv_write(nv, 0, &before[0], sizeof before[0]), 0);
		ck_assert_int_eq(mls_tpm2_nv_write(nv, 0, &after[0], cut), 0);
		mls_tpm2_nv_close(nv);
		ck_assert_int_eq(read_anew(uuid_a, key_a), cut < sizeof after[0] ? 4 : 5);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store_tpm2");
	TCase *tc = tcase_create("store_tpm2");

	if (system("command -v swtpm >/dev/null") != 0) {
		printf("swtpm isn't installed\n");
		return getenv("MLS_E2E") ? 1 : 77;
	}
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, holds_the_last_advance);
	tcase_add_test(tc, nothing_is_made_before_the_first_advance);
	tcase_add_test(tc, index_of_another_disk_is_left_alone);
	tcase_add_test(tc, wrong_key_is_told);
	tcase_add_test(tc, index_that_is_no_store_is_left_alone);
	tcase_add_test(tc, index_made_anew_by_the_owner_is_refused);
	tcase_add_test(tc, damaged_slots_are_told);
	tcase_add_test(tc, second_opener_is_kept_out);
	tcase_add_test(tc, no_tpm_is_told);
	tcase_add_test(tc, index_out_of_range_is_misuse);
	tcase_add_test(tc, owner_with_a_password);
	tcase_add_test(tc, nothing_secret_crosses_the_bus);
	tcase_add_test(tc, changed_answers_are_refused);
	tcase_add_test(tc, changed_writes_are_refused);
	tcase_add_test(tc, replayed_answers_are_refused);
	tcase_add_test(tc, writes_that_the_bus_acknowledges_are_refused);
	tcase_add_test(tc, patience_while_the_tpm_asks_for_it);
	tcase_add_test(tc, refusals_of_the_tpm_are_told);
	tcase_add_test(tc, sessions_of_the_dead_are_cleared);
	tcase_add_test(tc, power_cut_leaves_old_or_new);
	tcase_add_test(tc, power_cut_while_it_is_made);
	tcase_add_test(tc, torn_slot_leaves_the_other);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
