/* Perfetto's protobuf: a track per thread, a slice per frame, names said once.
 *
 * Each thread is a packet sequence of its own, so that what all its packets have in common is said once. What a file
 * cannot hold any more goes into another one, which begins with what it needs of those before: the process, the
 * thread, and the frames that are open, each from when it was opened.
 *
 * Messages are written from their end on, so that how long one is, is known when that is to be written.
 * Format: protos/perfetto/trace/ of Perfetto's source; the numbers are those of its fields.
 */
#include <stdlib.h>

#include "export.h"

#define RECORD_ROOM 256u /* of a packet without its texts */
#define PROCESS_UUID 1u
#define NANOSECONDS 1000000000u /* in a second */
#define FIRST_THREAD_UUID 2u

enum { VARINT = 0, BYTES = 2 };                                                 /* wire types */
enum { TRACE_PACKET = 1 };                                                      /* Trace */
enum { TIMESTAMP = 8, SEQUENCE_ID = 10, TRACK_EVENT = 11, INTERNED_DATA = 12 }; /* TracePacket */
enum { SEQUENCE_FLAGS = 13, PACKET_DEFAULTS = 59, TRACK_DESCRIPTOR = 60 };
enum { STATE_CLEARED = 1, NEEDS_STATE = 2 };
enum { EVENT_DEBUG_ANNOTATIONS = 4, EVENT_TYPE = 9, EVENT_NAME_IID = 10, EVENT_NAME = 23 };
enum { SLICE_BEGIN = 1, SLICE_END = 2, INSTANT = 3 };
enum { ANNOTATION_STRING = 6, ANNOTATION_NAME = 10 };
enum { INTERNED_EVENT_NAMES = 2, EVENT_NAME_OF_IID = 1, EVENT_NAME_TEXT = 2 };
enum { DEFAULT_EVENT = 11, DEFAULT_TRACK_UUID = 11 };
enum { TRACK_UUID = 1, TRACK_PROCESS = 3, TRACK_THREAD = 4, TRACK_PARENT_UUID = 5 };
enum { PROCESS_PID = 1, PROCESS_NAME = 6, THREAD_PID = 1, THREAD_TID = 2, THREAD_NAME = 5 };

/* Each writes right before `at` and tells where it begins. */
static char *before_varint(char *at, uint64_t value)
{
    uint32_t size = 1;
    for (uint64_t rest = value >> 7; rest; rest >>= 7)
        size++;
    at -= size;
    for (uint32_t byte = 0; byte < size; byte++, value >>= 7)
        at[byte] = (char)((value & 127) | (byte + 1 < size ? 128 : 0));
    return at;
}

static char *before_number(char *at, uint32_t field, uint64_t value)
{
    return before_varint(before_varint(at, value), field << 3 | VARINT);
}

static char *before_bytes(char *at, uint32_t field, const char *bytes, size_t size)
{
    at -= size;
    memcpy(at, bytes, size);
    return before_varint(before_varint(at, size), field << 3 | BYTES);
}

/* What was written from `at` to `end` becomes a field of a message around it. */
static char *before_message(char *at, uint32_t field, const char *end)
{
    return before_varint(before_varint(at, (uint64_t)(end - at)), field << 3 | BYTES);
}

/* Where a packet with texts of `size` bytes ends, before which it is written; null: no memory. */
static char *packet_end(struct ct_export *made, size_t size)
{
    char *room = ct_output_room(&made->output, RECORD_ROOM + size);
    return room ? room + RECORD_ROOM + size : NULL;
}

static void add_packet(struct ct_export *made, char *at, const char *end)
{
    at = before_message(at, TRACE_PACKET, end);
    char *room = made->output.data + made->output.size;
    memmove(room, at, (size_t)(end - at));
    made->output.size += (size_t)(end - at);
}

static uint64_t nanoseconds(struct ct_export *made, uint64_t ticks)
{
    if (ticks < made->options.start)
        return 0;
    if (!made->options.hz)
        return ticks - made->options.start;
    struct ct_moment moment = ct_moment_at(&made->time, ticks);
    if (moment.seconds >= INT64_MAX / NANOSECONDS) /* readers have no later time */
        return INT64_MAX;
    return moment.seconds * NANOSECONDS + moment.tenths / 10;
}

/* The packets that a file begins with. */
static enum ct_taken begin_file(struct ct_export *made)
{
    enum ct_taken taken = CT_TAKEN;
    const struct ct_text *name = ct_text_of(made, CT_TEXT_PROCESS, 0, &taken);
    if (!name)
        return taken;
    char *end = packet_end(made, name->size), *at = end;
    if (!at)
        return CT_TAKES_MEMORY;
    at = before_bytes(at, PROCESS_NAME, name->data, name->size);
    at = before_number(at, PROCESS_PID, made->options.process_id);
    at = before_message(at, TRACK_PROCESS, end);
    at = before_number(at, TRACK_UUID, PROCESS_UUID);
    at = before_message(at, TRACK_DESCRIPTOR, end);
    add_packet(made, before_number(at, SEQUENCE_ID, ++made->perfetto.sequence), end);
    made->perfetto.file++;
    made->perfetto.file_size = 0;
    return CT_TAKEN;
}

/* The packet that a thread begins with, in each file. */
static enum ct_taken begin_thread(struct ct_export *made)
{
    const struct ct_thread_entry *thread = &made->machine.reader->threads[made->step.thread].entry;
    char name[CT_NUMBER_ROOM];
    size_t size = (size_t)(ct_put_number(CT_PUT(name, "thread "), thread->index) - name);
    char *end = packet_end(made, size), *at = end;
    if (!at)
        return CT_TAKES_MEMORY;
    uint64_t uuid = (uint64_t)thread->index + FIRST_THREAD_UUID;
    at = before_bytes(at, THREAD_NAME, name, size);
    at = before_number(at, THREAD_TID, thread->id);
    at = before_number(at, THREAD_PID, made->options.process_id);
    at = before_message(at, TRACK_THREAD, end);
    at = before_number(at, TRACK_PARENT_UUID, PROCESS_UUID);
    at = before_number(at, TRACK_UUID, uuid);
    at = before_message(at, TRACK_DESCRIPTOR, end);
    const char *defaults_end = at;
    at = before_number(at, DEFAULT_TRACK_UUID, uuid);
    at = before_message(at, DEFAULT_EVENT, defaults_end);
    at = before_message(at, PACKET_DEFAULTS, defaults_end);
    at = before_number(at, SEQUENCE_FLAGS, STATE_CLEARED);
    add_packet(made, before_number(at, SEQUENCE_ID, ++made->perfetto.sequence), end);
    return CT_TAKEN;
}

static void add_event(struct ct_export *made, char *at, const char *end, const char *event_end, uint32_t type,
                      uint64_t time)
{
    at = before_number(at, EVENT_TYPE, type);
    at = before_message(at, TRACK_EVENT, event_end);
    at = before_number(at, SEQUENCE_FLAGS, NEEDS_STATE);
    at = before_number(at, SEQUENCE_ID, made->perfetto.sequence);
    add_packet(made, before_number(at, TIMESTAMP, nanoseconds(made, time)), end);
}

static enum ct_taken begin_slice(struct ct_export *made, uint32_t kind, uint32_t id, uint64_t time)
{
    enum ct_taken taken = CT_TAKEN;
    const struct ct_text *name = ct_text_of(made, kind, id, &taken);
    if (!name)
        return taken;
    struct ct_perfetto *perfetto = &made->perfetto;
    uint32_t number = ct_node_number(&made->nodes, (struct ct_node){id, kind});
    if (!ct_reserve_items((void **)&perfetto->interned, &perfetto->interned_room, number + 1u, sizeof(uint32_t)))
        return CT_TAKES_MEMORY;
    char *end = packet_end(made, name->size), *at = end;
    if (!at)
        return CT_TAKES_MEMORY;
    uint64_t iid = (uint64_t)number + 1;
    if (perfetto->interned[number] != perfetto->sequence) {
        perfetto->interned[number] = perfetto->sequence;
        at = before_bytes(at, EVENT_NAME_TEXT, name->data, name->size);
        at = before_number(at, EVENT_NAME_OF_IID, iid);
        at = before_message(at, INTERNED_EVENT_NAMES, end);
        at = before_message(at, INTERNED_DATA, end);
    }
    const char *event_end = at;
    add_event(made, before_number(at, EVENT_NAME_IID, iid), end, event_end, SLICE_BEGIN, time);
    return CT_TAKEN;
}

static enum ct_taken end_slice(struct ct_export *made)
{
    static const char told[] = "closed by";
    enum ct_taken taken = CT_TAKEN;
    const struct ct_text *cause = NULL;
    if (made->step.cause != CT_CAUSE_RETURN)
        cause = ct_text_of(made, CT_TEXT_CAUSE, made->step.cause, &taken);
    if (taken != CT_TAKEN)
        return taken;
    char *end = packet_end(made, cause ? cause->size : 0), *at = end;
    if (!at)
        return CT_TAKES_MEMORY;
    if (cause) {
        at = before_bytes(at, ANNOTATION_STRING, cause->data, cause->size);
        at = before_bytes(at, ANNOTATION_NAME, told, sizeof told - 1);
        at = before_message(at, EVENT_DEBUG_ANNOTATIONS, end);
    }
    add_event(made, at, end, end, SLICE_END, made->step.time);
    return CT_TAKEN;
}

/* A mark, or a gap. */
static enum ct_taken instant(struct ct_export *made)
{
    const struct ct_step *step = &made->step;
    enum ct_taken taken = CT_TAKEN;
    char number[64];
    struct ct_text counted = {number, 0};
    const struct ct_text *name = &counted;
    if (step->type == CT_STEP_MARK && step->id)
        name = ct_text_of(made, CT_TEXT_MARK, step->id, &taken);
    else if (step->type == CT_STEP_MARK)
        counted.size = (uint32_t)(ct_put_number(CT_PUT(number, "mark "), step->value) - number);
    else
        counted.size = (uint32_t)(CT_PUT(ct_put_number(CT_PUT(number, "gap: "), step->value), " events lost") - number);
    if (!name)
        return taken;
    char *end = packet_end(made, name->size);
    if (!end)
        return CT_TAKES_MEMORY;
    add_event(made, before_bytes(end, EVENT_NAME, name->data, name->size), end, end, INSTANT, step->time);
    return CT_TAKEN;
}

static enum ct_taken take_step(struct ct_export *made)
{
    switch (made->step.type) {
    case CT_STEP_THREAD:
        return begin_thread(made);
    case CT_STEP_OPEN:
        return begin_slice(made, made->step.kind, made->step.id, made->step.time);
    case CT_STEP_CLOSE:
        return end_slice(made);
    case CT_STEP_MARK:
    case CT_STEP_GAP:
        return instant(made);
    default:
        return CT_TAKEN;
    }
}

enum ct_taken ct_perfetto_take(struct ct_export *made)
{
    struct ct_perfetto *perfetto = &made->perfetto;
    const struct ct_step *step = &made->step;
    enum ct_taken taken = CT_TAKEN;
    if (perfetto->file && !perfetto->splitting && perfetto->file_size >= made->options.limit && step->type) {
        perfetto->splitting = true;
        return CT_SPLITS;
    }
    if (!perfetto->file || (perfetto->splitting && !perfetto->telling)) {
        taken = begin_file(made);
        if (taken == CT_TAKEN && perfetto->splitting && step->type != CT_STEP_THREAD)
            taken = begin_thread(made);
        if (taken != CT_TAKEN)
            return taken;
        perfetto->telling = perfetto->splitting;
        perfetto->told_depth = 0;
    }
    if (perfetto->telling) {
        /* A frame that was just closed still lies where it was. */
        uint32_t open = step->depth + (step->type == CT_STEP_CLOSE);
        if (step->type != CT_STEP_THREAD && perfetto->told_depth < open) {
            const struct ct_frame *frame = &made->machine.frames[perfetto->told_depth++];
            taken = begin_slice(made, frame->kind, frame->id, frame->begin);
            return taken == CT_TAKEN ? CT_TAKE_AGAIN : taken;
        }
        perfetto->telling = perfetto->splitting = false;
    }
    size_t before = made->output.size;
    taken = take_step(made);
    perfetto->file_size += made->output.size - before;
    return taken;
}
