/* Takes the place of Capstone's own SStream.c, which builds an instruction's text: the planner wants operands and
 * encodings only, and without their text it decodes a fifth faster. Declarations: SStream.h of Capstone 5. */
#include <SStream.h>

void SStream_Init(SStream *ss)
{
    ss->index = 0;
    ss->buffer[0] = 0;
}

void SStream_concat(SStream *ss, const char *fmt, ...)
{
    (void)ss;
    (void)fmt;
}

void SStream_concat0(SStream *ss, const char *s)
{
    (void)ss;
    (void)s;
}

void SStream_concat1(SStream *ss, const char c)
{
    (void)ss;
    (void)c;
}

#define SILENT(name, type)                                                                                             \
    void name(SStream *ss, type value)                                                                                 \
    {                                                                                                                  \
        (void)ss;                                                                                                      \
        (void)value;                                                                                                   \
    }

SILENT(printInt64Bang, int64_t)
SILENT(printUInt64Bang, uint64_t)
SILENT(printInt64, int64_t)
SILENT(printUInt64, uint64_t)
SILENT(printInt32Bang, int32_t)
SILENT(printInt32, int32_t)
SILENT(printUInt32Bang, uint32_t)
SILENT(printUInt32, uint32_t)
SILENT(printInt32BangDec, int32_t)
