#include "rows.h"

#include <stddef.h>

enum ct_row ct_row_of(const struct ct_step *step)
{
    switch (step->type) {
    case CT_STEP_OPEN:
        return step->flags & CT_STEP_RESUMED ? CT_ROW_RESUME : CT_ROW_OPEN + step->kind;
    case CT_STEP_CLOSE:
        if (step->cause == CT_CAUSE_RETURN)
            return CT_ROW_RETURN + step->kind;
        if (step->cause == CT_CAUSE_TAIL)
            return CT_ROW_TAIL;
        return step->cause == CT_CAUSE_SWITCHED ? CT_ROW_SUSPEND : CT_ROW_UNWIND;
    case CT_STEP_ORPHAN:
        return CT_ROW_ORPHAN + (uint32_t)step->value;
    case CT_STEP_MUTED:
        return CT_ROW_MUTED;
    default:
        return CT_ROW_STEP + step->type;
    }
}

bool ct_row_node(const struct ct_step *step, struct ct_node *node)
{
    bool mark = step->type == CT_STEP_MARK;
    *node = (struct ct_node){step->id, mark ? (uint32_t)CT_TEXT_MARK : step->kind};
    return mark ? step->id != 0
                : step->type == CT_STEP_OPEN || step->type == CT_STEP_CLOSE || step->type == CT_STEP_LAND ||
                      step->type == CT_STEP_ORPHAN || (step->type == CT_STEP_MUTED && !(step->flags & CT_STEP_OTHERS));
}

bool ct_row_has_value(const struct ct_step *step)
{
    if (step->type == CT_STEP_OPEN)
        return step->value != 0;
    return step->type == CT_STEP_GAP || step->type == CT_STEP_MUTED || (step->type == CT_STEP_MARK && !step->id);
}

const char *ct_reader_row_name(uint32_t row)
{
    static const char *const names[CT_ROWS] = {
        [CT_ROW_OPEN + CT_NODE_FUNCTION] = "enter",
        [CT_ROW_OPEN + CT_NODE_CALL] = "call",
        [CT_ROW_OPEN + CT_NODE_API_FUNCTION] = "api-enter",
        [CT_ROW_OPEN + CT_NODE_API_CALL] = "api-call",
        [CT_ROW_RESUME] = "resume",
        [CT_ROW_RETURN + CT_NODE_FUNCTION] = "leave",
        [CT_ROW_RETURN + CT_NODE_CALL] = "return",
        [CT_ROW_RETURN + CT_NODE_API_FUNCTION] = "api-exit",
        [CT_ROW_RETURN + CT_NODE_API_CALL] = "api-ret",
        [CT_ROW_TAIL] = "tail",
        [CT_ROW_SUSPEND] = "suspend",
        [CT_ROW_UNWIND] = "unwind",
        [CT_ROW_STEP + CT_STEP_LAND] = "land",
        [CT_ROW_STEP + CT_STEP_MARK] = "mark",
        [CT_ROW_STEP + CT_STEP_GAP] = "gap",
        [CT_ROW_STEP + CT_STEP_THREAD_START] = "thread-start",
        [CT_ROW_STEP + CT_STEP_THREAD_EXIT] = "thread-exit",
        [CT_ROW_STEP + CT_STEP_STOP] = "stop",
        [CT_ROW_STEP + CT_STEP_RESET] = "reset",
        [CT_ROW_ORPHAN + 0] = "orphan-frame",
        [CT_ROW_ORPHAN + 1] = "orphan-enter",
        [CT_ROW_ORPHAN + 2] = "orphan-leave",
        [CT_ROW_ORPHAN + 3] = "orphan-tail",
        [CT_ROW_ORPHAN + 4] = "orphan-call",
        [CT_ROW_ORPHAN + 5] = "orphan-return",
        [CT_ROW_ORPHAN + 6] = "orphan-land",
        [CT_ROW_ORPHAN + 7] = "orphan-ext",
        [CT_ROW_MUTED] = "muted",
    };
    return row < CT_ROWS ? names[row] : NULL;
}
