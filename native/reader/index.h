/* Inside the reader: the index of a trace file, and the machine that walks a thread's units. */
#ifndef CALLTRACE_READER_INDEX_H
#define CALLTRACE_READER_INDEX_H

#include <stdbool.h>

#include "pages.h"
#include "reader.h"
#include "trace_format.h"

/* Counts and times beyond are no writer's; sums of those below do not wrap. */
#define CT_NUMBER_LIMIT (UINT64_C(1) << 62)

/* One thread's events in one block of the file. */
struct ct_piece {
    const uint8_t *units_at; /* in the file or in a copy; its block's header lies before */
    uint64_t first_unit;
    uint64_t open_tsc;
    uint64_t close_tsc;
    uint32_t units;
    uint32_t thread_index;
    uint32_t thread_id;
    bool live;
    bool copied; /* units_at is in a snapshot */
};

struct ct_reader_thread {
    struct ct_thread_entry entry;
    uint64_t first_piece, piece_count;
    bool ends_live; /* its last piece is a slot: nothing of it is missing at its end */
};

#define CT_NOT_SEEN UINT64_MAX

struct ct_slot {
    uint64_t offset; /* in the file */
    uint64_t *copy;  /* the whole block; null: there was none */
};

struct ct_slots {
    struct ct_slot *items;
    uint32_t count;
};

struct ct_place {
    uint64_t first_unit;
    uint32_t thread_index;
};

/* Which blocks there are; by thread, each thread's last block first. */
struct ct_places {
    struct ct_place *items;
    uint32_t count;
};

struct ct_snapshot {
    struct ct_file_header header;
    uint64_t file_size; /* before anything else was looked at */
    struct ct_slots slots;
    struct ct_places last;      /* of each thread in a slot: its last block */
    struct ct_places unwritten; /* all that were in a slot when ct_look_again looked */
};

/* The first_unit of the last block that the thread was seen in; CT_NOT_SEEN: in none. */
uint64_t ct_last_block(const struct ct_snapshot *snapshot, uint32_t thread_index);

/* After the headers of the chunks were read: fills snapshot->unwritten. False: no memory. */
bool ct_look_again(struct ct_snapshot *snapshot, const uint8_t *file, uint64_t size, bool mapped);

/* Was the block in a slot then? */
bool ct_is_unwritten(const struct ct_snapshot *snapshot, uint32_t thread_index, uint64_t first_unit);

/* Copies CT_BLOCK bytes that others may write to meanwhile. False: they were given to another block. */
bool ct_copy_block(const uint8_t *block, uint64_t *copy);

/* Addresses given through the C API, numbered in the order they are met. */
struct ct_addresses {
    uint64_t *values;
    uint32_t *slots; /* hash table of id + 1 */
    uint32_t count, slot_count;
};

/* A function may be left by a jump to another; `to` is CT_NONE if it is not known to which. */
struct ct_tail {
    uint32_t from, to;
};

struct ct_reader {
    const uint8_t *file;
    bool mapped;
    struct ct_file_header header;
    struct ct_snapshot *snapshot; /* null: nobody writes to the file any more */
    struct ct_index index;
    struct ct_piece *pieces;
    struct ct_module_entry *modules;
    struct ct_span *infos;
    struct ct_span graph; /* the last one; size 0: there is none */
    struct ct_reader_thread *threads;
    uint32_t id_count;     /* ids of functions and sites of all modules lie below */
    uint32_t *parents;     /* by function id: the parent of a funclet, else CT_NONE */
    uint32_t *holders;     /* by call site's id: the function that holds it, else CT_NONE */
    struct ct_tail *tails; /* where functions may be left to, ascending */
    uint64_t tail_count;
    struct ct_mark *marks; /* by thread, position and number */
    uint32_t mark_count;
    uint64_t units_read; /* by all machines */
    struct ct_addresses addresses;
};

/* A module's functions, ascending by RVA, for the caller to free; null: no memory. */
struct ct_start {
    uint32_t rva, id;
};
struct ct_start *ct_function_starts(const struct ct_reader *reader, const struct ct_module_entry *module);

/* The function that starts at `rva`; CT_NONE if none does. */
uint32_t ct_function_at(const struct ct_start *starts, uint32_t count, uint32_t rva);

struct ct_site_record ct_site_at(const struct ct_reader *reader, const struct ct_module_entry *module, uint32_t at);

/* Fills reader->tails from the sites of its modules. False: no memory. */
bool ct_read_tails(struct ct_reader *reader);

/* May an ENTER of `to` right behind a TAIL of `from` be where that jump went? */
bool ct_may_tail(const struct ct_reader *reader, uint32_t from, uint32_t to);

/* Units of an open piece: up to the zero unit that ends it, payloads (which may be zero) stepped over. */
uint32_t ct_open_units(const uint8_t *units, uint32_t room, uint32_t unit_size);

/* The id of a VA; 0 is the id of every address after too many. False: no memory. */
bool ct_address_id(struct ct_addresses *addresses, uint64_t va, uint32_t *id);

/* Makes room for `count` elements of `size` bytes in *array, doubling; new ones are zero. False: no memory. */
bool ct_reserve_items(void **array, uint64_t *capacity, uint64_t count, size_t size);

#endif
