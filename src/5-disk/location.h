/* SPDX-License-Identifier: MPL-2.0 */
/*
 * location.h - layer 5: what the index keeps as a record's "hba".
 *
 * Role     A location is the HBA (low 40 bits) and the low 24 bits of the segment's birth. The
 *          birth tells a record of a segment's former life from one of its present life, so a
 *          cleaned segment can be reused while compaction hasn't met its old records yet.
 * Shapes   40 bits of HBA are 4 PiB. Location 0 is MLS_HBA_NONE: HBA 0 is a superblock.
 */
#ifndef MLS_DISK_LOCATION_H
#define MLS_DISK_LOCATION_H

#include <stdbool.h>
#include <stdint.h>

#define MLS_LOC_HBA_BITS 40
#define MLS_LOC_HBA_MASK ((UINT64_C(1) << MLS_LOC_HBA_BITS) - 1)
#define MLS_LOC_BIRTH_MASK 0xffffffu

static inline uint64_t mls_loc_make(uint64_t hba, uint64_t birth)
{
	return hba | (birth & MLS_LOC_BIRTH_MASK) << MLS_LOC_HBA_BITS;
}

static inline uint64_t mls_loc_hba(uint64_t loc)
{
	return loc & MLS_LOC_HBA_MASK;
}

/* Was the record written in the life of the segment that began with birth? */
static inline bool mls_loc_is_of(uint64_t loc, uint64_t birth)
{
	return loc >> MLS_LOC_HBA_BITS == (birth & MLS_LOC_BIRTH_MASK);
}

#endif
