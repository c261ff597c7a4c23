// build: -O2 -std=c++17 -fno-inline -fno-optimize-sibling-calls -finstrument-functions -D__USE_MINGW_ANSI_STDIO=0
/* C++ exceptions of many shapes on three threads, whose entries and exits the compiler's hooks write down too: g++ puts
 * an exit hook where an exception passes through a function.
 */
#include "hooks.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Guard {
    int *counter;
    explicit Guard(int *counter) : counter(counter)
    {
    }
    ~Guard();
};

static void count(int *counter)
{
    ++*counter;
}

Guard::~Guard()
{
    count(counter);
}

struct Shape {
    virtual ~Shape() = default;
    virtual int area(int size) const = 0;
};

struct Square : Shape {
    int area(int size) const override
    {
        return size * size;
    }
};

struct Refuses : Shape {
    int area(int size) const override
    {
        throw std::out_of_range(std::to_string(size));
    }
};

/* Its second member's constructor throws: the first member is destroyed. */
struct Built {
    Guard first;
    std::unique_ptr<Shape> second;
    Built(int *counter, int n) : first(counter), second(make(n))
    {
    }
    static std::unique_ptr<Shape> make(int n)
    {
        if (n % 3 == 0)
            throw n;
        if (n % 3 == 1)
            return std::make_unique<Refuses>();
        return std::make_unique<Square>();
    }
};

/* A destructor within which an exception is thrown and caught, while another one is on its way or not. */
struct Careful {
    int *counter;
    ~Careful()
    {
        try {
            Guard guard(counter);
            throw 1.5;
        } catch (double) {
            count(counter);
        }
    }
};

static int descend(int depth, int *counter)
{
    Guard guard(counter);
    if (depth == 0)
        throw std::runtime_error("deep");
    return descend(depth - 1, counter) + 1;
}

static int translated(int *counter)
{
    try {
        return descend(5, counter);
    } catch (const std::runtime_error &error) {
        Careful careful{counter};
        throw std::logic_error(std::string(error.what()) + "er");
    }
}

static int in_function_try(int n, int *counter)
try {
    Built built(counter, n);
    return built.second->area(n);
} catch (int thrown) {
    return thrown;
}

/* Through frames of the standard library. */
static bool less(int a, int b)
{
    if (a == 7 || b == 7)
        throw 'x';
    return a < b;
}

static int sorted(std::vector<int> values, int *counter)
{
    Guard guard(counter);
    std::function<bool(int, int)> by = less;
    try {
        std::sort(values.begin(), values.end(), by);
    } catch (char) {
        return -1;
    }
    return values.front();
}

static int turn(int n)
{
    int counter = 0;
    try {
        Careful careful{&counter};
        if (n % 2)
            translated(&counter);
        counter += sorted({5, 3, n % 4 == 0 ? 7 : 9, 1}, &counter);
        in_function_try(n, &counter);
    } catch (const std::logic_error &error) {
        counter += static_cast<int>(std::string(error.what()).size());
    }
    return counter;
}

static DWORD WINAPI turns(void *result)
{
    for (int n = 0; n < 100; n++)
        *static_cast<int *>(result) += turn(n);
    return 0;
}

int main()
{
    int results[3] = {0, 0, 0};
    HANDLE threads[3];
    for (int i = 0; i < 3; i++)
        threads[i] = CreateThread(nullptr, 0, turns, &results[i], 0, nullptr);
    for (HANDLE thread : threads)
        WaitForSingleObject(thread, INFINITE);
    printf("100 turns: %d %d %d\n", results[0], results[1], results[2]);
    return 0;
}
