/* SPDX-License-Identifier: MPL-2.0 */
/* nth_ops.c - see nth_ops.h. In the order of mlsdisk.h. */
#include "tests/nth/nth_ops.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "5-disk/superblock.h"
#include "check/repair.h"
#include "check/salvage.h"
#include "tests/lib/test_fsck.h"
#include "tests/lib/test_rand.h"
#include "trust/store.h"

const struct mls_secret nth_second = { "another key that is 32 bytes ..", 32, false };

bool nth_is(const struct nth_world *w, const char *name)
{
	return strcmp(w->now.op->name, name) == 0;
}

/* ---- The device and the store of our own ---- */

static void file_path(const struct nth_world *w, const char *name, char path[64])
{
	snprintf(path, 64, "%s/%s", w->dir, name);
}

/* One block in one transfer, or four in four, so that both ways of the device are met. */
static int device_turn(struct mls_block_dev *dev, uint8_t *out, uint8_t *in)
{
	struct mls_io ios[4];
	int err;

	for (unsigned i = 0; i < 4; i++) {
		block_fill(out + i * MLS_BLOCK_BYTES, i, 9);
		ios[i] = (struct mls_io){ 2 * i, 1, 0, out + i * MLS_BLOCK_BYTES };
	}
	err = dev->ops->write(dev, ios, 4);
	if (!err)
		err = dev->ops->write(dev, ios, 1);
	if (!err)
		err = dev->ops->flush(dev);
	for (unsigned i = 0; i < 4; i++)
		ios[i].data = in + i * MLS_BLOCK_BYTES;
	if (!err)
		err = dev->ops->read(dev, ios, 4);
	if (!err)
		err = dev->ops->read(dev, ios, 1);
	return !err && memcmp(in, out, 4 * MLS_BLOCK_BYTES) != 0 ? 1 : err;
}

static void *device_main(void *arg)
{
	struct mls_block_dev *dev = NULL;
	struct nth_world *w = arg;
	static int err;
	char path[64];

	file_path(w, "device", path);
	err = mls_block_dev_open(&dev, path, MLS_DEV_CREATE, 64 * MLS_BLOCK_BYTES);
	if (!err)
		err = device_turn(dev, w->buf, w->buf + 4 * MLS_BLOCK_BYTES);
	mls_block_dev_destroy(dev);
	unlink(path);
	return &err;
}

/* In a thread of its own: its ring goes with it. */
static int op_device(struct nth_world *w)
{
	pthread_t thread;
	void *err;

	if (pthread_create(&thread, NULL, device_main, w) || pthread_join(thread, &err))
		abort();
	return *(int *)err;
}

static int op_device_memory(struct nth_world *w)
{
	struct mls_block_dev *dev = NULL;
	int err = mls_block_dev_mem_new(&dev, 16);

	if (!err)
		err = device_turn(dev, w->buf, w->buf + 4 * MLS_BLOCK_BYTES);
	mls_block_dev_destroy(dev);
	return err;
}

static int store_turn(struct nth_world *w, const char *uri, struct mls_trust *trust, bool advance)
{
	static const uint8_t key[32] = { 7 };
	struct mls_trusted_store *store = NULL;
	int err = mls_trusted_store_open(&store, uri, w->f.uuid);

	if (!err)
		err = store->ops->set_key(store, key);
	if (!err && advance)
		err = store->ops->advance(store, trust);
	else if (!err)
		err = store->ops->read(store, trust);
	mls_trusted_store_destroy(store);
	return err;
}

/* Two advances of a store in a new directory; afterwards it holds the last one that succeeded, or its successor. */
static int op_store(struct nth_world *w)
{
	struct mls_trust trust = { .sync_id = 5 }, found = { .sync_id = 0 };
	char dir[64], path[96], uri[128];
	uint64_t held = 0;
	int err = 0, e;

	memcpy(trust.uuid, w->f.uuid, sizeof trust.uuid);
	file_path(w, "store", dir);
	snprintf(path, sizeof path, "%s/register", dir);
	snprintf(uri, sizeof uri, "file:%s", path);
	for (unsigned i = 0; i < 2 && !err; i++) {
		trust.sync_id = 5 + i;
		err = store_turn(w, uri, &trust, true);
		held = err ? held : trust.sync_id;
	}
	nth_disarm();
	e = store_turn(w, uri, &found, false);
	if (e == MLS_ENOENT ? held != 0 : e != 0 || (found.sync_id != held && found.sync_id != held + (held ? 1 : 5)))
		err = 1;
	unlink(path);
	rmdir(dir);
	return err;
}

/* ---- Format, probe, key slots ---- */

static int op_uuid(struct nth_world *w)
{
	uint8_t uuid[MLS_UUID_BYTES];

	(void)w;
	return mls_uuid_new(uuid);
}

static int op_format(struct nth_world *w)
{
	struct mls_format_opts opts = { .disk_bytes = NTH_DISK_BYTES };
	int err = mls_disk_format(w->flaky, w->store, &w->f.secret, w->f.uuid, &opts);

	memset(&w->model, 0, sizeof w->model);
	if (err) {	/* what is there is no disk, or the new one; either way it can be formatted again */
		nth_disarm();
		err = mls_disk_format(w->f.dev, &w->f.store.base, &w->f.secret, w->f.uuid, &opts) ? 1 : err;
	}
	return err;
}

static int op_probe(struct nth_world *w)
{
	struct mls_probe probe;
	int err = mls_probe(w->flaky, &probe);

	if (!err && (!probe.is_mlsdisk || memcmp(probe.uuid, w->f.uuid, sizeof probe.uuid) != 0))
		err = 1;
	return err;
}

static int op_key_list(struct nth_world *w)
{
	struct mls_key_info info[MLS_NR_KEY_SLOTS];
	int err = mls_key_list(w->flaky, info);

	return !err && !(info[0].used && !info[7].used) ? 1 : err;
}

static bool opens_with(struct nth_world *w, const struct mls_secret *secret)
{
	struct mls_superblock sb;
	struct mls_keyring *keys;

	if (mls_superblock_read(w->f.dev, secret, &sb, &keys) != 0)
		return false;
	mls_keyring_free(keys);
	return true;
}

/* An error other than of a write or flush leaves the old set; of those, the old or the new one. */
static int slots_are(struct nth_world *w, int err, bool first_new, bool second_old, bool second_new)
{
	bool first, second, is_old, is_new;

	nth_disarm();
	first = opens_with(w, &w->f.secret);
	second = opens_with(w, &nth_second);
	is_old = first && second == second_old;
	is_new = first == first_new && second == second_new;
	if (err == 0)
		return is_new ? 0 : 1;
	return is_old || (is_new && (w->now.kind == NTH_WRITE || w->now.kind == NTH_FLUSH)) ? err : 1;
}

static int op_key_add(struct nth_world *w)
{
	int err = mls_key_add(w->flaky, &w->f.secret, &nth_second, MLS_KEY_SLOT_ANY, "second", NULL);

	return slots_are(w, err, true, false, true);
}

static int op_key_remove(struct nth_world *w)
{
	int err = mls_key_remove(w->flaky, &nth_second, MLS_KEY_SLOT_ANY, NULL);

	return slots_are(w, err, true, true, false);
}

static int op_key_change(struct nth_world *w)
{
	int err = mls_key_change(w->flaky, &w->f.secret, &nth_second, MLS_KEY_SLOT_ANY, "second", NULL);

	err = slots_are(w, err, false, false, true);
	if (opens_with(w, &nth_second))
		w->f.secret = nth_second;
	return err;
}

/* ---- Open and close ---- */

int nth_disk_open(struct nth_world *w, bool flaky)
{
	struct mls_open_opts opts = { .inline_work = !w->now.threads, .memtable_records = 64, .cache_bytes = MIB,
				      .accept_rollback = w->accept_rollback };

	return mls_disk_open(&w->disk, flaky ? w->flaky : w->f.dev, flaky ? w->store : &w->f.store.base,
			     &w->f.secret, &opts);
}

static int op_open(struct nth_world *w)
{
	return nth_disk_open(w, true);
}

static int op_open_accepting(struct nth_world *w)
{
	int err;

	w->accept_rollback = true;
	err = nth_disk_open(w, true);
	w->accept_rollback = err != 0;	/* once is enough: the store has moved forward */
	return err;
}

static int op_open_read_only(struct nth_world *w)
{
	struct mls_open_opts opts = { .read_only = true, .inline_work = !w->now.threads, .cache_bytes = MIB };
	int err = mls_disk_open(&w->disk, w->flaky, w->store, &w->f.secret, &opts);

	if (!err)
		err = mls_disk_close(w->disk);
	w->disk = NULL;
	return err;
}

int nth_disk_close(struct nth_world *w)
{
	int err;

	mls_disk_stat(w->disk, &w->stat);
	err = mls_disk_close(w->disk);
	w->disk = NULL;
	return err;
}

/* ---- The open disk ---- */

int nth_put(struct nth_world *w, uint64_t lba, uint64_t nr)
{
	uint64_t version = w->next_version++;
	int err;

	for (uint64_t i = 0; i < nr; i++) {
		block_fill(w->buf + i * MLS_BLOCK_BYTES, lba + i, version);
		nth_model_change(&w->model, lba + i, version);
	}
	err = mls_disk_write(w->disk, lba * MLS_BLOCK_BYTES, w->buf, nr * MLS_BLOCK_BYTES);
	if (!err)
		w->model.nr_sure = w->model.nr;
	return err;
}

static int op_write(struct nth_world *w)
{
	return nth_put(w, 33, 1);
}

static int op_write_many(struct nth_world *w)
{
	int err = 0;

	for (uint64_t i = 0; i < 5 && !err; i++)
		err = nth_put(w, i * 80, 60);
	return err;
}

static int op_overwrite(struct nth_world *w)
{
	struct test_rand r;
	int err = 0;

	test_rand_seed(&r, 11);
	for (unsigned i = 0; i < 250 && !err; i++)
		err = nth_put(w, test_rand_below(&r, NTH_NR_BLOCKS - 8), 8);
	return err;
}

static int op_write_part(struct nth_world *w)
{
	uint64_t version = w->next_version++, lba = 450;	/* a hole */
	int err;

	block_fill(w->buf, lba, version);
	nth_model_change(&w->model, lba, version | NTH_PART);
	err = mls_disk_write(w->disk, lba * MLS_BLOCK_BYTES, w->buf, NTH_PART_BYTES);
	if (err)
		return err;
	w->model.nr_sure = w->model.nr;
	nth_model_change(&w->model, lba, version);
	err = mls_disk_write(w->disk, lba * MLS_BLOCK_BYTES + NTH_PART_BYTES, w->buf + NTH_PART_BYTES,
			     MLS_BLOCK_BYTES - NTH_PART_BYTES);
	if (!err)
		w->model.nr_sure = w->model.nr;
	return err;
}

static int op_discard(struct nth_world *w)
{
	uint64_t lba = 20, nr = 100;
	int err = mls_disk_discard(w->disk, lba * MLS_BLOCK_BYTES, nr * MLS_BLOCK_BYTES);

	for (uint64_t i = lba; i < lba + nr; i++)
		nth_model_change(&w->model, i, 0);
	if (!err)
		w->model.nr_sure = w->model.nr;
	return err;
}

static int op_read(struct nth_world *w)
{
	uint8_t *to = malloc(3 * MLS_BLOCK_BYTES);
	int err = to ? mls_disk_read(w->disk, 0, w->buf, 128 * MLS_BLOCK_BYTES) : MLS_ENOMEM;

	if (!err)
		err = mls_disk_read(w->disk, 77, to, 2 * MLS_BLOCK_BYTES);
	free(to);
	return err;
}

static int op_seek(struct nth_world *w)
{
	uint64_t at = 0;
	int err = mls_disk_seek(w->disk, 0, false, &at);

	if (!err && at / MLS_BLOCK_BYTES < NR_SYNCED)
		err = 1;	/* a hole where there is none */
	if (!err)
		err = mls_disk_seek(w->disk, (NR_SYNCED - 1) * MLS_BLOCK_BYTES, true, &at);
	return err;
}

static int op_sync(struct nth_world *w)
{
	int err = mls_disk_sync(w->disk);

	if (!err)
		w->model.nr_synced = w->model.nr_sure;
	return err;
}

static int op_resize(struct nth_world *w)
{
	int err = mls_disk_resize(w->disk, GROWN_BYTES);

	mls_disk_stat(w->disk, &w->stat);
	if (w->stat.disk_bytes != GROWN_BYTES && (!err || w->stat.disk_bytes != NTH_DISK_BYTES))
		return 1;
	return err;
}

static int op_stats(struct nth_world *w)
{
	char *json = NULL;
	size_t bytes = 0;
	int err = mls_disk_stats_json(w->disk, &json, &bytes);

	if (!err && (bytes == 0 || json[bytes] != '\0'))
		err = 1;
	free(json);
	return err;
}

/* ---- Checking and salvaging ---- */

/* No lack of memory or threads makes a sound disk look damaged. */
static bool may_find_faults(const struct nth_world *w)
{
	return nth_fired() && (w->now.kind == NTH_READ || w->now.kind == NTH_STORE);
}

static int op_fsck(struct nth_world *w)
{
	struct test_fsck found;
	int err = test_fsck(w->flaky, w->store, &w->f.secret, &found);

	return found.nr_faults && !may_find_faults(w) ? 1 : err;
}

static int op_repair(struct nth_world *w)
{
	struct mls_inspect *x = NULL;
	int err;

	err = mls_inspect_open(&x, w->flaky, w->store, &w->f.secret, NULL, NULL);
	if (!err && !x->authentic)
		err = MLS_EIO;	/* the good copy couldn't be read */
	if (!err)
		err = mls_inspect_check(x, NULL, NULL);
	if (!err)
		err = mls_repair_superblock(x);
	if (!err && x->consistent && x->counted && !x->index_damaged && x->verdict != MLS_INSPECT_REFUSED)
		err = mls_repair_state(x, w->store, &w->f.secret);
	mls_inspect_close(x);
	return err;
}

/* Every block that was saved is the truth, and what isn't saved is told, or that the index is damaged. */
static bool salvage_is_true(struct nth_world *w, const struct mls_salvage *s)
{
	uint64_t version;

	for (uint64_t lba = 0; lba < NTH_NR_BLOCKS; lba++) {
		bool lost = false;

		if (pread(s->image_fd, w->buf, MLS_BLOCK_BYTES, (off_t)(lba * MLS_BLOCK_BYTES)) != MLS_BLOCK_BYTES ||
		    !nth_model_version_of(w->buf, lba, &version))
			return false;
		for (size_t i = 0; i < s->nr_ranges; i++)
			lost = lost || (lba >= s->lost[i].lba && lba < s->lost[i].lba + s->lost[i].nr_lbas);
		if (version != w->model.base[lba] && !((lost || s->x->index_damaged) && version == 0) &&
		    !s->from_summaries)
			return false;
	}
	return true;
}

/* What the checks find lost, as mlsdisk-fsck notes it; what the data pass finds, salvage notes by itself. */
static void note_lost(void *arg, const struct mls_finding *finding)
{
	int err = 0;

	if (finding->lba != MLS_FINDING_NOWHERE && finding->nr_lbas && mls_finding_pass(finding->code) < 6)
		err = mls_salvage_lose(arg, finding->lba, finding->nr_lbas, finding->code);
	if (err)
		abort();	/* reads fail in this run, not memory */
}

static int op_salvage(struct nth_world *w)
{
	struct mls_salvage salvage = { .image_fd = w->image_fd };
	struct mls_inspect *x = NULL;
	int err = mls_inspect_open(&x, w->flaky, w->store, &w->f.secret, note_lost, &salvage);

	salvage.x = x;

	if (ftruncate(w->image_fd, 0) || ftruncate(w->image_fd, NTH_DISK_BYTES))
		abort();
	if (!err && !x->authentic)
		err = MLS_EIO;
	if (!err)
		err = mls_inspect_check(x, NULL, NULL);
	if (!err)
		err = mls_salvage_run(&salvage);
	if (!err && !may_find_faults(w) && (salvage.nr_lost || salvage.from_summaries))
		err = 1;	/* nothing was wrong with the disk */
	nth_disarm();
	if (!err && !salvage_is_true(w, &salvage))
		err = 1;
	mls_salvage_release(&salvage);
	mls_inspect_close(x);
	return err;
}

const struct nth_operation nth_operations[] = {
	{ "device", op_device, OP_OFFLINE | OP_SYSTEM },
	{ "device-memory", op_device_memory, OP_OFFLINE | OP_SYSTEM },
	{ "store", op_store, OP_OFFLINE | OP_SYSTEM },
	{ "uuid", op_uuid, OP_OFFLINE | OP_SYSTEM },
	{ "format", op_format, OP_OFFLINE },
	{ "probe", op_probe, OP_OFFLINE },
	{ "key-list", op_key_list, OP_OFFLINE },
	{ "key-add", op_key_add, OP_OFFLINE },
	{ "key-remove", op_key_remove, OP_OFFLINE | OP_TWO_KEYS },
	{ "key-change", op_key_change, OP_OFFLINE },
	{ "open", op_open, OP_OFFLINE | OP_THREADS },
	{ "open-read-only", op_open_read_only, OP_OFFLINE },
	{ "open-accepting", op_open_accepting, OP_OFFLINE | OP_ROLLED_BACK | OP_THREADS },
	{ "write", op_write, 0 },
	{ "write-many", op_write_many, 0 },
	{ "overwrite", op_overwrite, 0 },
	{ "write-part", op_write_part, 0 },
	{ "discard", op_discard, 0 },
	{ "read", op_read, OP_CLEAN },
	{ "seek", op_seek, OP_CLEAN },
	{ "sync", op_sync, 0 },
	{ "resize", op_resize, 0 },
	{ "stats", op_stats, 0 },
	{ "close", nth_disk_close, 0 },
	{ "fsck", op_fsck, OP_OFFLINE | OP_THREADS },
	{ "repair", op_repair, OP_OFFLINE | OP_DAMAGED },
	{ "salvage", op_salvage, OP_OFFLINE | OP_THREADS },
};
const unsigned nth_nr_operations = sizeof nth_operations / sizeof *nth_operations;
