// build: -O1 -fno-inline -fno-optimize-sibling-calls -fno-ipa-cp -fno-ipa-sra
/* C++ exceptions that a debugger's user looks at from inside: he stops in MulDiv, which is not traced, and which a
 * destructor calls while frames are unwound, and then a catch block. What is exported has a name for him.
 */
#include <windows.h>

#define SHOWN extern "C" __declspec(dllexport)

SHOWN int stop(int number)
{
    return MulDiv(number, 2, 3) + 1;
}

struct Guard {
    int *number;
    ~Guard()
    {
        *number += stop(*number);
    }
};

SHOWN int thrower(int number)
{
    Guard guard = {&number};
    if (number > 1)
        throw number;
    return number;
}

SHOWN int catcher(int number)
{
    try {
        return thrower(number) + 1;
    } catch (int caught) {
        return stop(caught + 1);
    }
}

SHOWN int caller(int number)
{
    return catcher(number + 1) + 3;
}

int main(int argc, char **)
{
    return caller(argc + 1);
}
