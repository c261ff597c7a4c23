/* The lines of a call tree as text. */
#include <stdlib.h>

#include "export.h"

#define BATCH 4096u
#define RECORD_ROOM 512u
#define DEEPEST_INDENT 40u /* levels; what lies deeper says its level in words */
#define TIMES "\xC3\x97"
#define ARROW "\xE2\x86\x92"

/* The texts that a line needs; null where it needs none. */
struct texts {
    const struct ct_text *name, *from, *to, *cause;
};

/* The name of the function at a VA. */
static const struct ct_text *place_of(struct ct_export *made, uint64_t va, enum ct_taken *taken)
{
    uint32_t id;
    if (!ct_address_id(&made->machine.reader->addresses, va, &id)) {
        *taken = CT_TAKES_MEMORY;
        return NULL;
    }
    return ct_text_of(made, CT_NODE_API_FUNCTION, id, taken);
}

static enum ct_taken find_texts(struct ct_export *made, const struct ct_line *line, struct texts *texts)
{
    enum ct_taken taken = CT_TAKEN;
    *texts = (struct texts){0};
    if (line->type == CT_LINE_MARK && line->id)
        texts->name = ct_text_of(made, CT_TEXT_MARK, line->id, &taken);
    if (line->type == CT_LINE_MUTED && !(line->flags & CT_LINE_OTHERS))
        texts->name = ct_text_of(made, line->kind, line->id, &taken);
    if (line->type != CT_LINE_FRAME && line->type != CT_LINE_CLOSE)
        return taken;
    bool jumps = line->cause == CT_CAUSE_TAIL, from_api = line->kind >= CT_NODE_API_FUNCTION;
    texts->name = ct_text_of(made, line->kind, line->id, &taken);
    if (taken == CT_TAKEN && line->value && from_api && !jumps)
        texts->from = place_of(made, line->value, &taken);
    if (taken == CT_TAKEN && jumps && line->flags & CT_LINE_TAIL_KNOWN)
        texts->to = ct_text_of(made, line->tail_kind, line->tail_id, &taken);
    else if (taken == CT_TAKEN && jumps && line->value)
        texts->to = place_of(made, line->value, &taken);
    if (taken == CT_TAKEN && !jumps && line->cause != CT_CAUSE_RETURN)
        texts->cause = ct_text_of(made, CT_TEXT_CAUSE, line->cause, &taken);
    return taken;
}

static size_t size_of(const struct ct_text *text)
{
    return text ? text->size : 0;
}

static char *put_text(char *at, const struct ct_text *text)
{
    return ct_put(at, text->data, text->size);
}

static char *put_indent(char *at, uint32_t depth)
{
    uint32_t levels = (depth < DEEPEST_INDENT ? depth : DEEPEST_INDENT) + 1;
    memset(at, ' ', (size_t)levels * 2);
    at += (size_t)levels * 2;
    if (depth > DEEPEST_INDENT)
        at = CT_PUT(ct_put_number(CT_PUT(at, "[level "), depth), "] ");
    return at;
}

static char *put_frame(const struct ct_export *made, char *at, const struct ct_line *line, const struct texts *texts)
{
    if (line->type == CT_LINE_CLOSE)
        at = CT_PUT(at, "end of ");
    at = put_text(at, texts->name);
    if (line->count > 1)
        at = ct_put_count(CT_PUT(at, " " TIMES), line->count);
    if (line->flags & CT_LINE_RESUMED)
        at = CT_PUT(at, "  goes on");
    if (texts->from)
        at = put_text(CT_PUT(at, "  from "), texts->from);
    if (made->options.timed && line->cause != CT_CAUSE_NONE)
        at = ct_put_duration(CT_PUT(at, "  "), line->duration, made->options.hz);
    if (texts->to)
        at = put_text(CT_PUT(at, "  tail " ARROW " "), texts->to);
    else if (line->cause == CT_CAUSE_TAIL && made->machine.reader->header.policy == CT_POLICY_COUNT)
        at = CT_PUT(at, "  tail " ARROW " code muted or not traced");
    else if (line->cause == CT_CAUSE_TAIL)
        at = CT_PUT(at, "  tail " ARROW " code not traced");
    else if (texts->cause)
        at = put_text(CT_PUT(at, "  "), texts->cause);
    return at;
}

static char *put_muted(char *at, const struct ct_line *line, const struct texts *texts)
{
    at = CT_PUT(at, "-- muted here or deeper: ");
    if (!texts->name) {
        at = CT_PUT(ct_put_count(at, line->count), " calls of ");
        return CT_PUT(ct_put_count(at, line->id), " others --");
    }
    at = put_text(at, texts->name);
    if (line->count > 1)
        at = ct_put_count(CT_PUT(at, " " TIMES), line->count);
    return CT_PUT(at, " --");
}

static enum ct_taken put_line(struct ct_export *made, const struct ct_line *line)
{
    struct texts texts;
    enum ct_taken taken = find_texts(made, line, &texts);
    if (taken != CT_TAKEN)
        return taken;
    size_t size = size_of(texts.name) + size_of(texts.from) + size_of(texts.to) + size_of(texts.cause);
    char *at = ct_output_room(&made->output, RECORD_ROOM + size);
    if (!at)
        return CT_TAKES_MEMORY;
    if (line->type == CT_LINE_THREAD) {
        const struct ct_thread_entry *thread = &made->machine.reader->threads[line->thread].entry;
        at = ct_put_number(CT_PUT(at, "thread "), thread->index);
        at = CT_PUT(ct_put_number(CT_PUT(at, " (id "), thread->id), ")");
    } else {
        at = put_indent(at, line->depth);
        if (line->type == CT_LINE_MARK) {
            at = CT_PUT(at, "-- mark ");
            at = CT_PUT(texts.name ? put_text(at, texts.name) : ct_put_number(at, line->value), " --");
        } else if (line->type == CT_LINE_GAP) {
            at = ct_put_count(CT_PUT(at, "-- gap: "), line->value);
            at = line->value == 1 ? CT_PUT(at, " event lost --") : CT_PUT(at, " events lost --");
        } else if (line->type == CT_LINE_MUTED) {
            at = put_muted(at, line, &texts);
        } else {
            at = put_frame(made, at, line, &texts);
        }
    }
    *at++ = '\n';
    ct_output_end(&made->output, at);
    return CT_TAKEN;
}

enum ct_taken ct_line_take(struct ct_export *made)
{
    struct ct_lines *lines = &made->lines;
    if (lines->next < lines->count) {
        enum ct_taken taken = put_line(made, &lines->of[lines->next]);
        lines->next += taken == CT_TAKEN;
        return taken == CT_TAKEN ? CT_TAKE_AGAIN : taken;
    }
    if (lines->pull != CT_PULL_MORE) {
        made->done = true;
        return CT_TAKEN;
    }
    if (!lines->of)
        lines->of = malloc(BATCH * sizeof *lines->of);
    if (!lines->of)
        return CT_TAKES_MEMORY;
    lines->next = 0;
    lines->count = ct_reader_tree_next(lines->tree, lines->of, BATCH, &lines->pull);
    return lines->pull == CT_PULL_NO_MEMORY ? CT_TAKES_MEMORY : CT_RESTS;
}
