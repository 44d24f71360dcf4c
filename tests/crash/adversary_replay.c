/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_replay.c - what BACKING had at an earlier moment is put back: blocks, runs, logs, areas, all
 * of it.
 *
 * A whole old image must be refused as what it is, MLS_ESTALE; anything less gives the truth or an error.
 */
#include "tests/crash/adversary_lib.h"

#include <string.h>

#include "base/buf.h"
#include "base/checked.h"

/* Does no later moment, up to now, have the same bytes there? Then this is the one to put back. */
static bool is_last_of_its_kind(const struct adv_disk *d, unsigned moment, uint64_t hba)
{
	const uint8_t *block = adv_old_block(&d->moments[moment], hba);

	if (memcmp(block, tamper_dev_at(d->dev, hba), MLS_BLOCK_BYTES) == 0)
		return false;
	for (unsigned i = moment + 1; i < d->nr_moments; i++)
		if (memcmp(block, adv_old_block(&d->moments[i], hba), MLS_BLOCK_BYTES) == 0)
			return false;
	return true;
}

/* Each block, in each version that it ever had at a moment. */
void adv_replay_block(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		for (unsigned m = 0; m + 1 < d->nr_moments; m++) {
			if (!is_last_of_its_kind(d, m, hba) ||
			    !adv_case(a, 2, "HBA %" PRIu64 " as it was at moment %" PRIu64, hba, m, 0))
				continue;
			tamper_dev_begin(d->dev);
			tamper_dev_put(d->dev, hba, adv_old_block(&d->moments[m], hba));
			adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
		}
	}
}

/* Each run of the pool, and ranges of any length anywhere. */
void adv_replay_run(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t run = 0; run < d->nr_runs; run++) {
		for (unsigned m = 0; m + 1 < d->nr_moments; m++) {
			if (!adv_case(a, 4, "run %" PRIu64 " as it was at moment %" PRIu64, run, m, 0))
				continue;
			tamper_dev_begin(d->dev);
			adv_put_back(d, &d->moments[m], adv_run(d, run));
			adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
		}
	}
	for (unsigned i = 0; i < 3000; i++) {
		struct adv_range range;

		if (!adv_case(a, 4, "a range put back, round %" PRIu64, i, 0, 0))
			continue;
		range.hba = test_rand_below(&a->rand, d->dev->base.nr_blocks);
		range.nr_blocks = UINT64_C(1) << test_rand_below(&a->rand, 10);
		range.nr_blocks = mls_min_u64(range.nr_blocks, d->dev->base.nr_blocks - range.hba);
		tamper_dev_begin(d->dev);
		adv_put_back(d, adv_any_moment(a), range);
		adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
	}
}

/* The runs of each log, as they were; and of any two of them. */
void adv_replay_log(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (uint64_t first = 0; first < d->nr_runs; first++) {
		for (uint64_t second = first; second < d->nr_runs; second++) {
			if (!d->log_of_run[first] || !d->log_of_run[second])
				continue;
			for (unsigned m = 0; m + 1 < d->nr_moments; m++) {
				if (!adv_case(a, second == first ? 1 : 32,
					      "the logs in runs %" PRIu64 " and %" PRIu64
					      " as they were at moment %" PRIu64,
					      first, second, m))
					continue;
				tamper_dev_begin(d->dev);
				for (uint64_t run = 0; run < d->nr_runs; run++)
					if (d->log_of_run[run] && (d->log_of_run[run] == d->log_of_run[first] ||
								   d->log_of_run[run] == d->log_of_run[second]))
						adv_put_back(d, &d->moments[m], adv_run(d, run));
				adv_look(a, ADV_REFUSALS, ADV_ANY_MODE);
			}
		}
	}
}

/* Every set of parts (superblocks, journal areas, WAL, runs), but the whole, from each moment. */
void adv_replay_parts(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (unsigned m = 0; m + 1 < d->nr_moments; m++) {
		for (unsigned set = 1; set + 1 < 1u << ADV_NR_PARTS; set++) {
			if (!adv_case(a, 1, "the set %" PRIu64 " of parts as they were at moment %" PRIu64, set,
				      m, 0))
				continue;
			tamper_dev_begin(d->dev);
			for (unsigned part = 0; part < ADV_NR_PARTS; part++)
				if (set >> part & 1)
					adv_put_back(d, &d->moments[m], d->parts[part]);
			adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
		}
	}
}

/* Each part from a moment of its own, or as it is; or each block. */
void adv_replay_mixed(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (unsigned i = 0; i < 4000; i++) {
		if (!adv_case(a, 4, "parts of several moments mixed, round %" PRIu64, i, 0, 0))
			continue;
		tamper_dev_begin(d->dev);
		for (unsigned part = 0; part < ADV_NR_PARTS && i % 4; part++)
			if (test_rand_chance(&a->rand, 3, 4))
				adv_put_back(d, adv_any_moment(a), d->parts[part]);
		for (uint64_t hba = 0; hba < d->dev->base.nr_blocks && i % 4 == 0; hba++)
			if (test_rand_chance(&a->rand, 1, 1 + i))
				adv_put_back(d, adv_any_moment(a), (struct adv_range){hba, 1});
		adv_look(a, ADV_KEY_REFUSALS, ADV_ANY_MODE);
	}
}

/* ---- Whole images ---- */

/* Is this, bytes and all, what is there now? */
static bool is_now(const struct adv_disk *d, const struct adv_moment *moment)
{
	return memcmp(&moment->store.trust, &d->store.trust, sizeof d->store.trust) == 0;
}

static void open_moment(struct adv *a, const struct adv_moment *moment, const struct test_store *register_then,
			bool fits)
{
	struct adv_disk *d = a->d;
	struct test_store store = *register_then;
	struct mls_disk *disk;
	uint64_t nr_lbas = d->nr_lbas;
	int err;

	tamper_dev_begin(d->dev);
	adv_put_back(d, moment, (struct adv_range){0, d->dev->base.nr_blocks});
	err = adv_open(d, &store, test_rand_chance(&a->rand, 1, 2), 0, &disk);
	if (err != (fits ? MLS_OK : MLS_ESTALE))
		adv_fail(a, "open: %s, expected %s", mls_strerror(err),
			 fits ? "success" : mls_strerror(MLS_ESTALE));
	if (!err) {
		d->nr_lbas = moment->nr_lbas;
		if (!adv_read_all(a, disk, moment->content, d->given_up ? d->truth : NULL))
			adv_fail(a, "an error on an untouched image");
		d->nr_lbas = nr_lbas;
		adv_must(a, mls_disk_close(disk), "close");
		a->count->harmless++;
	} else {
		a->count->refused++;
	}
	tamper_dev_undo(d->dev);
}

/* Each image with the register of each moment: it opens with its own one, and with no other. (The register that
 * is one sync behind, too, goes with an image: that is a crash.) */
void adv_replay_image(struct adv *a)
{
	struct adv_disk *d = a->d;

	for (unsigned m = 0; m < d->nr_moments; m++) {
		const struct adv_moment *moment = &d->moments[m];

		if (adv_case(a, 1, "the whole image of moment %" PRIu64 " put back", m, 0, 0))
			open_moment(a, moment, &d->store, is_now(d, moment));
		for (unsigned other = 0; other < d->nr_moments; other++) {
			uint64_t sync_id = moment->store.trust.sync_id,
				 then = d->moments[other].store.trust.sync_id;

			if (then != sync_id && then + 1 >= sync_id && then < sync_id + (d->given_up != NULL))
				continue;
			if (adv_case(a, 1,
				     "the whole image of moment %" PRIu64
				     " with the register of moment %" PRIu64,
				     m, other, 0))
				open_moment(a, moment, &d->moments[other].store, then == sync_id);
		}
	}
}
