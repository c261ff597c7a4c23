#include "write.h"

void ct_put(struct ct_writer *writer, const void *bytes, uint32_t size)
{
    if (writer->bytes && size <= writer->size && writer->at <= writer->size - size) {
        memcpy(writer->bytes + writer->at, bytes, size);
    }
    writer->at += size;
}

void ct_fix_u32(struct ct_writer *writer, uint32_t at, uint32_t value)
{
    if (writer->bytes && at <= writer->size && writer->size - at >= 4) {
        memcpy(writer->bytes + at, &value, 4);
    }
}

void ct_fix_rel32(struct ct_writer *writer, uint32_t at, uint32_t target)
{
    ct_fix_u32(writer, at, target - (writer->region + at + 4));
}

void ct_put_rel32(struct ct_writer *writer, const void *opcode, uint32_t size, uint32_t target)
{
    static const uint8_t hole[4];
    ct_put(writer, opcode, size);
    ct_put(writer, hole, sizeof hole);
    ct_fix_rel32(writer, writer->at - 4, target);
}

void ct_align(struct ct_writer *writer, uint32_t alignment)
{
    static const uint8_t trap = 0xCC;
    while (writer->at % alignment) {
        ct_put(writer, &trap, 1);
    }
}
