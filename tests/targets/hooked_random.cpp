// build: -O2 -std=c++17 -fno-inline -fno-optimize-sibling-calls -finstrument-functions -D__USE_MINGW_ANSI_STDIO=0
/* 96 functions whose bodies a random number chooses at compile time, calling each other at random: directly, through a
 * table, through a switch, virtually, from destructors, out of try blocks, throwing now and then. The compiler's hooks
 * write down what two threads of them did.
 */
#include "hooks.h"

#include <array>
#include <cstdio>
#include <utility>

constexpr unsigned NODES = 96, DEEPEST = 40;

constexpr unsigned mixed(unsigned value)
{
    value = (value ^ value >> 16) * 0x45D9F3Bu;
    value = (value ^ value >> 13) * 0xC2B2AE35u;
    return value ^ value >> 16;
}

/* The state of one thread's walk. */
struct Walk {
    unsigned random, left, depth, sum;
};

struct Thrown {
    unsigned from;
};

struct Base {
    virtual unsigned visit(Walk &walk) = 0;
    virtual ~Base() = default;
};

template <unsigned N> unsigned node(Walk &walk);

template <unsigned N> struct Visitor : Base {
    unsigned visit(Walk &walk) override
    {
        return node<N>(walk) ^ N;
    }
};

template <unsigned N> struct OnExit {
    Walk &walk;
    ~OnExit()
    {
        try {
            node<N>(walk);
        } catch (const Thrown &) {
            walk.sum++;
        }
    }
};

static unsigned next(Walk &walk)
{
    return (walk.random = walk.random * 1664525 + 1013904223) >> 8;
}

template <unsigned... N> constexpr auto table_of(std::integer_sequence<unsigned, N...>)
{
    return std::array<unsigned (*)(Walk &), sizeof...(N)>{node<N>...};
}

extern const std::array<unsigned (*)(Walk &), NODES> nodes;

/* One level down, unless the walk is over. */
struct Level {
    Walk &walk;
    bool open;
    explicit Level(Walk &walk) : walk(walk), open(walk.left && walk.depth < DEEPEST)
    {
        walk.depth++;
        walk.left -= open;
    }
    ~Level()
    {
        walk.depth--;
    }
};

template <unsigned N> unsigned node(Walk &walk)
{
    constexpr unsigned a = mixed(N * 3) % NODES, b = mixed(N * 3 + 1) % NODES, shape = mixed(N * 3 + 2) % 10;
    Level level(walk);
    if (!level.open)
        return N;
    if constexpr (shape == 0) {
        unsigned first = node<a>(walk);
        return first + node<b>(walk);
    } else if constexpr (shape == 1) {
        return nodes[next(walk) % NODES](walk) + 1;
    } else if constexpr (shape == 2) {
        try {
            return node<a>(walk) * 3;
        } catch (const Thrown &thrown) {
            return thrown.from + node<b>(walk);
        }
    } else if constexpr (shape == 3) {
        OnExit<b> guard{walk};
        return node<a>(walk) + N;
    } else if constexpr (shape == 4) {
        unsigned sum = 0;
        for (unsigned i = next(walk) % 4; i > 0; i--)
            sum += node<a>(walk);
        return sum;
    } else if constexpr (shape == 5) {
        if (next(walk) % 4 == 0)
            throw Thrown{N};
        return node<a>(walk) - 1;
    } else if constexpr (shape == 6) {
        try {
            return node<a>(walk);
        } catch (const Thrown &) {
            node<b>(walk);
            throw;
        }
    } else if constexpr (shape == 7) {
        switch (next(walk) % 7) {
        case 0:
            return node<a>(walk);
        case 1:
            return node<b>(walk) + 5;
        case 2:
            walk.sum += 9;
            return node<(a + 1) % NODES>(walk);
        case 3:
            return 17;
        case 4:
            return node<(b + 1) % NODES>(walk) ^ walk.sum;
        case 5:
            throw Thrown{N + 1000};
        default:
            return node<(a + b) % NODES>(walk) * 2;
        }
    } else if constexpr (shape == 8) {
        Visitor<a> first;
        Visitor<b> second;
        Base &chosen = next(walk) % 2 ? static_cast<Base &>(first) : second;
        return chosen.visit(walk);
    } else {
        OnExit<a> guard{walk};
        try {
            OnExit<b> inner{walk};
            if (next(walk) % 3 == 0)
                throw Thrown{N};
            return nodes[next(walk) % NODES](walk);
        } catch (const Thrown &thrown) {
            if (thrown.from % 2)
                throw Thrown{thrown.from / 2};
            return thrown.from;
        }
    }
}

const std::array<unsigned (*)(Walk &), NODES> nodes = table_of(std::make_integer_sequence<unsigned, NODES>());

static DWORD WINAPI walk_all(void *data)
{
    Walk &walk = *static_cast<Walk *>(data);
    for (unsigned start = 0; start < NODES; start++) {
        walk.left = 40;
        walk.depth = 0;
        try {
            walk.sum += nodes[start % NODES](walk);
        } catch (const Thrown &thrown) {
            walk.sum += thrown.from;
        }
    }
    return 0;
}

int main()
{
    Walk walks[2];
    HANDLE threads[2];
    for (unsigned i = 0; i < 2; i++) {
        walks[i] = {i + 1, 0, 0, 0};
        threads[i] = CreateThread(nullptr, 0, walk_all, &walks[i], 0, nullptr);
    }
    for (unsigned i = 0; i < 2; i++) {
        WaitForSingleObject(threads[i], INFINITE);
        printf("%u\n", walks[i].sum);
    }
    return 0;
}
