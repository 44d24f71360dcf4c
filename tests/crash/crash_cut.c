/* SPDX-License-Identifier: MPL-2.0 */
/* crash_cut.c - which pending blocks a crash leaves; see crash_cut.h. */
#include "tests/crash/crash_cut.h"

#include <string.h>

#include "base/err.h"
#include "tests/lib/test_rand.h"

#define SECTOR_BYTES 512u
#define NR_SECTORS (MLS_BLOCK_BYTES / SECTOR_BYTES)
#define ALL_SECTORS ((1u << NR_SECTORS) - 1)
#define SUBSETS_MAX 10u			/* so many blocks have all their subsets among the choices */
#define NR_RANDOM 4096u

bool crash_cut_is_at(const struct crash_trace *trace, uint32_t at)
{
	return at == trace->nr || trace->events[at].kind != CRASH_DISCARD;
}

static void add_piece(struct crash_cut *cut, uint32_t event, uint32_t block)
{
	MLS_INVARIANT(cut->nr < CRASH_PIECES_MAX);
	cut->pieces[cut->nr++] = (struct crash_piece){ event, block };
}

void crash_cut_init(struct crash_cut *cut, const struct crash_trace *trace, uint32_t durable, uint32_t at)
{
	cut->trace = trace;
	cut->at = at;
	cut->nr = 0;
	for (uint32_t i = durable; i < trace->nr && i <= at; i++) {
		const struct crash_event *event = &trace->events[i];

		if (event->kind == CRASH_DISCARD)
			add_piece(cut, i, 0);
		for (uint32_t j = 0; event->kind == CRASH_WRITE && j < event->nr_blocks; j++)
			add_piece(cut, i, j);
	}
}

bool crash_cut_in_advance(const struct crash_cut *cut)
{
	return cut->at < cut->trace->nr && cut->trace->events[cut->at].kind == CRASH_ADVANCE;
}

uint64_t crash_cut_nr_choices(const struct crash_cut *cut)
{
	if (cut->nr == 0)
		return 1;
	return 2 + 5 * (uint64_t)cut->nr + (cut->nr <= SUBSETS_MAX ? UINT64_C(1) << cut->nr : NR_RANDOM);
}

/* Sectors of piece i that got through. */
static unsigned fate(const struct crash_cut *cut, uint64_t choice, uint32_t i, struct test_rand *rand)
{
	uint32_t nr = cut->nr, one;
	unsigned tear = (unsigned)test_rand_between(rand, 1, ALL_SECTORS - 1);
	unsigned draw = (unsigned)test_rand_below(rand, 8);

	if (choice < 2)
		return choice == 0 ? ALL_SECTORS : 0;
	choice -= 2;
	one = nr - 1 - (uint32_t)(choice % nr);		/* the latest first */
	switch (choice / nr) {
	case 0:						/* one torn, all others kept */
		return i == one ? tear : ALL_SECTORS;
	case 1:						/* a prefix, its last one torn */
		return i < one ? ALL_SECTORS : i == one ? tear : 0;
	case 2:						/* a prefix */
		return i < one ? ALL_SECTORS : 0;
	case 3:						/* one dropped */
		return i == one ? 0 : ALL_SECTORS;
	case 4:						/* one kept */
		return i == one ? ALL_SECTORS : 0;
	default:
		break;
	}
	choice -= 5 * (uint64_t)nr;
	if (nr <= SUBSETS_MAX)
		return choice >> i & 1 ? ALL_SECTORS : 0;
	/* A prefix of the random ones is likely to be mostly kept, the rest is mixed evenly. */
	if (choice % 2)
		return draw ? ALL_SECTORS : tear;
	return draw == 0 ? tear : draw < 5 ? ALL_SECTORS : 0;
}

static void apply_block(struct crash_medium *medium, uint64_t hba, const uint8_t *new_block, unsigned sectors)
{
	uint8_t block[MLS_BLOCK_BYTES];

	memcpy(block, medium->bytes + (size_t)hba * MLS_BLOCK_BYTES, sizeof block);
	for (unsigned i = 0; i < NR_SECTORS; i++)
		if (sectors >> i & 1)
			memcpy(block + i * SECTOR_BYTES, new_block + i * SECTOR_BYTES, SECTOR_BYTES);
	crash_medium_put(medium, hba, block);
}

void crash_cut_apply(const struct crash_cut *cut, uint64_t choice, struct crash_medium *medium)
{
	struct test_rand rand;

	MLS_INVARIANT(choice < crash_cut_nr_choices(cut));
	test_rand_seed(&rand, test_rand_mix(cut->at, choice));
	for (uint32_t i = 0; i < cut->nr; i++) {
		const struct crash_piece *piece = &cut->pieces[i];
		const struct crash_event *event = &cut->trace->events[piece->event];
		unsigned sectors = fate(cut, choice, i, &rand);

		if (event->kind == CRASH_DISCARD && sectors)
			crash_medium_spoil(medium, event->hba, event->nr_blocks);
		else if (sectors)
			apply_block(medium, event->hba + piece->block,
				    crash_trace_block(cut->trace, event, piece->block), sectors);
	}
}

void crash_trace_apply(const struct crash_trace *trace, uint32_t from, uint32_t to, struct crash_medium *medium)
{
	for (uint32_t i = from; i < to; i++) {
		const struct crash_event *event = &trace->events[i];

		if (event->kind == CRASH_DISCARD)
			crash_medium_spoil(medium, event->hba, event->nr_blocks);
		for (uint32_t j = 0; event->kind == CRASH_WRITE && j < event->nr_blocks; j++)
			crash_medium_put(medium, event->hba + j, crash_trace_block(trace, event, j));
	}
}
