/* A trace as the bytes of another format: what all have in common, and those whose records stand by themselves.
 *
 * What frames are called is asked for, once each, when it is first needed: then the step waits for it.
 */
#include "export.h"

#include <stdlib.h>

#include "rows.h"

#define STEPS_PER_RUN (1u << 22)
#define BYTES_PER_RUN (1u << 20)
#define RECORD_ROOM 512u /* of a record without its texts */

const struct ct_text *ct_text_of(struct ct_export *made, uint32_t kind, uint32_t id, enum ct_taken *taken)
{
    made->wanted = (struct ct_node){id, kind};
    uint32_t number = ct_node_number(&made->nodes, made->wanted);
    if (number == CT_NONE ||
        !ct_reserve_items((void **)&made->texts, &made->texts_room, number + 1u, sizeof *made->texts)) {
        *taken = CT_TAKES_MEMORY;
        return NULL;
    }
    if (!made->texts[number].data) {
        *taken = CT_WANTS_TEXT;
        return NULL;
    }
    return &made->texts[number];
}

uint32_t ct_reader_export_text(struct ct_export *made, const struct ct_node *wanted, const char *text, uint32_t size)
{
    uint32_t number = ct_node_number(&made->nodes, *wanted);
    if (number == CT_NONE ||
        !ct_reserve_items((void **)&made->texts, &made->texts_room, number + 1u, sizeof *made->texts))
        return 0;
    char *copy = malloc(size + 1u);
    if (!copy)
        return 0;
    memcpy(copy, text, size);
    free((char *)made->texts[number].data);
    made->texts[number] = (struct ct_text){copy, size};
    return 1;
}

static const struct ct_thread_entry *thread_of(const struct ct_export *made)
{
    return &made->machine.reader->threads[made->step.thread].entry;
}

static void keep_thread(struct ct_export *made, const char *end)
{
    made->thread_size = (uint32_t)(end - made->thread);
}

static char *put_text(char *at, const struct ct_text *text)
{
    return ct_put(at, text->data, text->size);
}

/* ---- CSV ---- */

static enum ct_taken take_csv(struct ct_export *made)
{
    const struct ct_step *step = &made->step;
    if (!step->type)
        return CT_TAKEN;
    if (step->type == CT_STEP_THREAD) {
        char *end = ct_put_number(made->thread, thread_of(made)->index);
        *end++ = ',';
        end = ct_put_number(end, thread_of(made)->id);
        *end++ = ',';
        keep_thread(made, end);
        return CT_TAKEN;
    }
    enum ct_taken taken = CT_TAKEN;
    static const struct ct_text nowhere = {",,", 2};
    const struct ct_text *place = &nowhere, *cause = NULL;
    struct ct_node node;
    if (ct_row_node(step, &node))
        place = ct_text_of(made, node.kind, node.id, &taken);
    if (place && step->type == CT_STEP_CLOSE)
        cause = ct_text_of(made, CT_TEXT_CAUSE, step->cause, &taken);
    if (taken != CT_TAKEN)
        return taken;
    char *at = ct_output_room(&made->output, RECORD_ROOM + place->size + (cause ? cause->size : 0));
    if (!at)
        return CT_TAKES_MEMORY;
    at = ct_put(at, made->thread, made->thread_size);
    at = ct_put_number(at, step->position);
    *at++ = ',';
    if (made->options.timed)
        at = ct_put_signed(at, (int64_t)(step->time - made->options.start));
    *at++ = ',';
    const char *name = ct_reader_row_name(ct_row_of(step));
    at = ct_put(at, name, strlen(name));
    *at++ = ',';
    at = ct_put_number(at, step->depth);
    *at++ = ',';
    at = put_text(at, place);
    *at++ = ',';
    if (cause)
        at = put_text(at, cause);
    *at++ = ',';
    if (ct_row_has_value(step))
        at = ct_put_number(at, step->value);
    *at++ = '\n';
    ct_output_end(&made->output, at);
    return CT_TAKEN;
}

/* ---- Chrome's JSON ---- */

static char *put_microseconds(struct ct_export *made, char *at)
{
    if (!made->options.hz)
        return ct_put_signed(at, (int64_t)(made->step.time - made->options.start));
    return ct_put_microseconds(at, ct_moment_at(&made->time, made->step.time));
}

static enum ct_taken take_chrome(struct ct_export *made)
{
    const struct ct_step *step = &made->step;
    if (step->type == CT_STEP_THREAD) {
        char *end = CT_PUT(made->thread, "\"pid\":");
        end = CT_PUT(ct_put_number(end, made->options.process_id), ",\"tid\":");
        const uint32_t *ids = made->options.thread_ids;
        keep_thread(made, CT_PUT(ct_put_number(end, ids ? ids[step->thread] : thread_of(made)->id), ",\"ts\":"));
        return CT_TAKEN;
    }
    enum ct_taken taken = CT_TAKEN;
    const struct ct_text *text = NULL, *cause = NULL;
    if (step->type == CT_STEP_OPEN || step->type == CT_STEP_CLOSE)
        text = ct_text_of(made, step->kind, step->id, &taken);
    else if (step->type == CT_STEP_MARK && step->id)
        text = ct_text_of(made, CT_TEXT_MARK, step->id, &taken);
    else if (step->type != CT_STEP_MARK && step->type != CT_STEP_GAP)
        return CT_TAKEN;
    if (taken == CT_TAKEN && step->type == CT_STEP_CLOSE && step->cause != CT_CAUSE_RETURN)
        cause = ct_text_of(made, CT_TEXT_CAUSE, step->cause, &taken);
    if (taken != CT_TAKEN)
        return taken;
    char *at = ct_output_room(&made->output, RECORD_ROOM + (text ? text->size : 0) + (cause ? cause->size : 0));
    if (!at)
        return CT_TAKES_MEMORY;
    if (step->type == CT_STEP_OPEN || step->type == CT_STEP_CLOSE) {
        /* An end needs no name, but some readers want one. */
        at = step->type == CT_STEP_OPEN ? CT_PUT(at, ",\n{\"ph\":\"B\",\"name\":")
                                        : CT_PUT(at, ",\n{\"ph\":\"E\",\"name\":");
        at = put_text(at, text);
        *at++ = ',';
    } else {
        at = CT_PUT(at, ",\n{\"ph\":\"i\",\"s\":\"t\",\"name\":");
        if (text)
            at = put_text(at, text);
        else if (step->type == CT_STEP_MARK)
            at = CT_PUT(ct_put_number(CT_PUT(at, "\"mark "), step->value), "\"");
        else
            at = CT_PUT(ct_put_number(CT_PUT(at, "\"gap: "), step->value), " events lost\"");
        *at++ = ',';
    }
    at = put_microseconds(made, ct_put(at, made->thread, made->thread_size));
    if (cause) {
        at = put_text(CT_PUT(at, ",\"args\":{\"closed by\":"), cause);
        *at++ = '}';
    }
    *at++ = '}';
    ct_output_end(&made->output, at);
    return CT_TAKEN;
}

/* ---- Speedscope's JSON ---- */

static char *put_nanoseconds(struct ct_export *made, char *at, uint64_t ticks)
{
    if (!made->options.hz)
        return ct_put_signed(at, (int64_t)(ticks - made->options.start));
    return ct_put_nanoseconds(at, ct_moment_at(&made->time, ticks));
}

static char *put_profile_end(struct ct_export *made, char *at)
{
    at = CT_PUT(at, "\n],\"startValue\":");
    at = made->profile.empty ? CT_PUT(at, "0") : put_nanoseconds(made, at, made->profile.first);
    at = CT_PUT(at, ",\"endValue\":");
    at = made->profile.empty ? CT_PUT(at, "0") : put_nanoseconds(made, at, made->profile.last);
    *at++ = '}';
    return at;
}

static enum ct_taken take_speedscope(struct ct_export *made)
{
    const struct ct_step *step = &made->step;
    enum ct_taken taken = CT_TAKEN;
    const struct ct_text *number = NULL;
    if (step->type == CT_STEP_OPEN || step->type == CT_STEP_CLOSE)
        number = ct_text_of(made, step->kind, step->id, &taken);
    if (taken != CT_TAKEN)
        return taken;
    char *at = ct_output_room(&made->output, RECORD_ROOM + (number ? number->size : 0));
    if (!at)
        return CT_TAKES_MEMORY;
    if (!step->type || step->type == CT_STEP_THREAD) {
        if (made->profile.open)
            at = put_profile_end(made, at);
        if (made->profile.open && step->type)
            *at++ = ',';
        made->profile.open = step->type;
        made->profile.empty = true;
    }
    if (step->type == CT_STEP_THREAD) {
        at = ct_put_number(CT_PUT(at, "\n{\"type\":\"evented\",\"name\":\"thread "), thread_of(made)->index);
        at = ct_put_number(CT_PUT(at, " (id "), thread_of(made)->id);
        at = CT_PUT(at, ")\",\"unit\":\"");
        at = made->options.hz ? CT_PUT(at, "nanoseconds") : CT_PUT(at, "none");
        at = CT_PUT(at, "\",\"events\":[");
    } else if (number) {
        if (made->profile.empty)
            made->profile.first = step->time;
        else
            *at++ = ',';
        made->profile.empty = false;
        made->profile.last = step->time;
        at = CT_PUT(at, "\n{\"type\":\"");
        *at++ = step->type == CT_STEP_OPEN ? 'O' : 'C';
        at = put_text(CT_PUT(at, "\",\"frame\":"), number);
        at = put_nanoseconds(made, CT_PUT(at, ",\"at\":"), step->time);
        *at++ = '}';
    }
    ct_output_end(&made->output, at);
    return CT_TAKEN;
}

/* ---- all formats ---- */

struct ct_export *ct_reader_export_open(struct ct_reader *reader, const struct ct_export_options *options,
                                        const struct ct_tree_options *tree)
{
    struct ct_export *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    made->options = *options;
    if (options->hz)
        ct_time_start(&made->time, options->start, options->hz);
    ct_machine_start(&made->machine, reader, 0, tree ? 0 : UINT32_MAX, &made->totals);
    if (tree)
        made->lines.tree = ct_reader_tree_open(reader, tree);
    if (!tree || made->lines.tree)
        return made;
    ct_reader_export_close(made);
    return NULL;
}

void ct_reader_export_close(struct ct_export *made)
{
    ct_machine_free(&made->machine);
    for (uint32_t number = 0; number < made->nodes.count && number < made->texts_room; number++)
        free((char *)made->texts[number].data);
    ct_nodes_free(&made->nodes);
    free(made->texts);
    free(made->output.data);
    ct_folded_free(&made->folded);
    free(made->perfetto.interned);
    if (made->lines.tree)
        ct_reader_tree_close(made->lines.tree);
    free(made->lines.of);
    free(made);
}

/* The next step into `made`; behind the last one there is one of type 0. False: no memory. */
static bool next(struct ct_export *made)
{
    made->held = true;
    if (made->lines.tree || ct_machine_next(&made->machine, &made->step))
        return true;
    made->done = true;
    made->step.type = 0;
    return !made->machine.no_memory;
}

static uint32_t run(struct ct_export *made, struct ct_node *wanted)
{
    static enum ct_taken (*const take[CT_EXPORT_FORMATS])(struct ct_export *) = {
        [CT_EXPORT_CSV] = take_csv,
        [CT_EXPORT_CHROME] = take_chrome,
        [CT_EXPORT_SPEEDSCOPE] = take_speedscope,
        [CT_EXPORT_FOLDED] = ct_folded_take,
        [CT_EXPORT_PERFETTO] = ct_perfetto_take,
        [CT_EXPORT_TREE] = ct_line_take,
    };
    for (uint32_t count = 0; count < STEPS_PER_RUN && made->output.size < BYTES_PER_RUN; count++) {
        if (!made->held && !next(made))
            return CT_PULL_NO_MEMORY;
        switch (take[made->options.format](made)) {
        case CT_TAKEN:
            made->held = false;
            if (made->done)
                return made->lines.tree ? made->lines.pull : CT_PULL_END;
            break;
        case CT_TAKE_AGAIN:
            break;
        case CT_RESTS:
            return CT_PULL_MORE;
        case CT_WANTS_TEXT:
            *wanted = made->wanted;
            return CT_PULL_TEXT;
        case CT_SPLITS:
            return CT_PULL_SPLIT;
        case CT_TAKES_MEMORY:
            return CT_PULL_NO_MEMORY;
        }
    }
    return CT_PULL_MORE;
}

uint32_t ct_reader_export_run(struct ct_export *made, const char **out, uint64_t *size, struct ct_node *wanted)
{
    made->output.size = 0;
    uint32_t pull = run(made, wanted);
    *out = made->output.data;
    *size = made->output.size;
    return pull;
}
