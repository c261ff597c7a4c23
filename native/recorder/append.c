/* Closed blocks into the trace file: at its end while there is room, then by the policy. */
#include "session.h"

/* No room, as the file systems say it; more may be had later. */
static bool is_out_of_room(NTSTATUS status)
{
    return status == STATUS_DISK_FULL || status == STATUS_QUOTA_EXCEEDED || status == STATUS_FILE_TOO_LARGE;
}

NTSTATUS ct_write(const struct session *s, uint64_t offset, const void *data, uint32_t size, uint32_t *done)
{
    *done = 0;
    while (*done < size) { /* a nearly full disk takes a part, and refuses at the next call */
        IO_STATUS_BLOCK io = {0};
        LARGE_INTEGER place = {.QuadPart = (LONGLONG)(offset + *done)};
        NTSTATUS status = NtWriteFile(ct_handle(s->given.file), NULL, NULL, NULL, &io, (const char *)data + *done,
                                      size - *done, &place, NULL);
        if (!NT_SUCCESS(status))
            return status;
        if (io.Information == 0)
            return STATUS_DISK_FULL;
        *done += (uint32_t)io.Information;
    }
    return STATUS_SUCCESS;
}

bool ct_read(const struct session *s, uint64_t offset, void *data, uint32_t size)
{
    IO_STATUS_BLOCK io = {0};
    LARGE_INTEGER place = {.QuadPart = (LONGLONG)offset};
    NTSTATUS status = NtReadFile(ct_handle(s->given.file), NULL, NULL, NULL, &io, data, size, &place, NULL);
    return NT_SUCCESS(status) && io.Information == size;
}

void ct_lose(struct session *s, const struct ct_events *block)
{
    ct_add64(&s->header->units_lost, block->chunk.payload_size / s->unit_size);
}

bool ct_is_events(const struct session *s, const struct ct_events *block)
{
    return block->chunk.kind == CT_CHUNK_EVENTS && block->chunk.length == CT_BLOCK && block->chunk.reserved == 0 &&
           block->chunk.payload_size <= CT_BLOCK - sizeof *block &&
           block->thread_index < ct_load32(&s->header->threads);
}

/* Makes a hole of a chunk that was written in part. Its header lies on the disk already, or never got there. */
static void erase(const struct session *s, uint64_t offset)
{
    uint32_t kind = CT_CHUNK_HOLE, done;
    ct_write(s, offset, &kind, sizeof kind, &done);
}

/* Reserves `size` bytes at the file's end; 0 if max_size is reached. */
static uint64_t reserve(struct session *s, uint64_t size)
{
    for (;;) {
        uint64_t offset = ct_load64(&s->header->append_end);
        uint64_t limit = ct_load64(&s->header->max_size);
        if (limit && offset + size > limit)
            return 0;
        if (ct_swap64(&s->header->append_end, offset, offset + size))
            return offset;
    }
}

static void lower_max_size(struct session *s, uint64_t size)
{
    uint64_t limit;
    do {
        limit = ct_load64(&s->header->max_size);
        if (limit && limit <= size)
            return;
    } while (!ct_swap64(&s->header->max_size, limit, size));
}

static bool write_block(struct session *s, struct slot *slot, uint64_t offset, NTSTATUS *status)
{
    uint32_t done;
    __atomic_store_n(&slot->offset, offset, __ATOMIC_SEQ_CST);
    *status = ct_write(s, offset, slot->block, CT_BLOCK, &done);
    if (NT_SUCCESS(*status))
        return true;
    if (done)
        erase(s, offset);
    __atomic_store_n(&slot->offset, 0, __ATOMIC_SEQ_CST);
    return false;
}

static enum append_result append_at_end(struct session *s, struct slot *slot)
{
    /* On a full disk each attempt may leave a hole behind, so only one thread at a time goes on trying. */
    bool probe = ct_load32(&s->disk_full) != 0;
    if (probe && !ct_swap32(&s->probing, 0, 1))
        return APPEND_NO_ROOM;
    enum append_result result = APPEND_NO_ROOM;
    uint64_t offset = reserve(s, CT_BLOCK);
    if (offset) {
        NTSTATUS status;
        if (write_block(s, slot, offset, &status)) {
            result = APPEND_DONE;
            if (probe)
                ct_store32(&s->disk_full, 0);
        } else {
            ct_swap64(&s->header->append_end, offset + CT_BLOCK, offset);
            if (is_out_of_room(status)) {
                ct_store32(&s->disk_full, 1);
                if (s->header->policy == CT_POLICY_DROP_OLDEST)
                    lower_max_size(s, offset);
            } else {
                result = APPEND_LOST;
            }
        }
    }
    if (probe)
        ct_store32(&s->probing, 0);
    return result;
}

/* Overwrites the oldest EVENTS chunk between ring_start and max_size. The ring's position walks from chunk to chunk,
 * so it never takes the inside of another chunk for a header; a hole may be a block somebody is just writing. */
static enum append_result overwrite_oldest(struct session *s, struct slot *slot)
{
    ct_swap64(&s->header->ring_start, 0, s->live_end);
    uint64_t start = ct_load64(&s->header->ring_start);
    uint64_t limit = ct_load64(&s->header->max_size);
    uint64_t blocks = limit > start ? (limit - start) / CT_BLOCK : 0;
    for (uint64_t tried = 0; tried < blocks;) {
        uint64_t next = ct_load64(&s->header->ring_next);
        uint64_t place = next % blocks;
        uint64_t offset = start + place * CT_BLOCK;
        struct ct_events old;
        bool known = ct_read(s, offset, &old, sizeof old);
        uint64_t step = 1;
        if (known && old.chunk.kind != CT_CHUNK_HOLE && old.chunk.length > CT_BLOCK)
            step = old.chunk.length / CT_BLOCK;
        if (step > blocks - place)
            step = blocks - place;
        if (!ct_swap64(&s->header->ring_next, next, next + step))
            continue;
        tried += step;
        if (!known || old.chunk.flags & CT_EVENTS_LIVE || !ct_is_events(s, &old))
            continue;
        ct_lose(s, &old);
        NTSTATUS status;
        return write_block(s, slot, offset, &status) ? APPEND_DONE : APPEND_LOST;
    }
    return APPEND_LOST;
}

enum append_result ct_append(struct session *s, struct slot *slot)
{
    struct ct_events *block = slot->block;
    NTSTATUS status;
    uint32_t flags = block->chunk.flags;
    block->chunk.flags = 0; /* they say something of slots only */
    if (slot->offset && write_block(s, slot, slot->offset, &status))
        return APPEND_DONE;
    enum append_result result = append_at_end(s, slot);
    if (result == APPEND_NO_ROOM && s->header->policy == CT_POLICY_DROP_OLDEST)
        result = overwrite_oldest(s, slot);
    if (result == APPEND_LOST)
        ct_lose(s, block);
    if (result == APPEND_NO_ROOM)
        block->chunk.flags = flags;
    return result;
}

struct ct_events *ct_append_slot(struct session *s)
{
    enum { LENGTH = 2 * CT_BLOCK };
    static const uint8_t zeros[CT_BLOCK];
    uint64_t offset = reserve(s, LENGTH);
    uint32_t done;
    HANDLE section;
    void *view = NULL;
    if (!offset)
        return NULL;
    if (!NT_SUCCESS(ct_write(s, offset + CT_BLOCK, zeros, CT_BLOCK, &done))) {
        ct_swap64(&s->header->append_end, offset + LENGTH, offset);
        return NULL;
    }
    if (!NT_SUCCESS(ct_open_section(ct_handle(s->given.file), &section)))
        return NULL;
    ct_map_part(section, offset + CT_BLOCK, CT_BLOCK, &view);
    NtClose(section);
    /* Until now these were two holes. */
    struct ct_chunk chunk = {.kind = CT_CHUNK_LIVE, .length = LENGTH};
    if (view && !NT_SUCCESS(ct_write(s, offset, &chunk, sizeof chunk, &done))) {
        NtUnmapViewOfSection(NT_PROCESS, view);
        view = NULL;
    }
    return view;
}
