/* bcryptprimitives.dll, which Rust's standard library imports and Wine 8 lacks: its one function that is used. */
#include <windows.h>

#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *data, SIZE_T size)
{
    return RtlGenRandom(data, (ULONG)size);
}
