/* For targets built for Microsoft's C++ runtime: what mingw's headers and import libraries lack of it, a vtable that
 * only its address is taken of, and an end. */
extern const void *const type_info_vtable __asm__("??_7type_info@@6B@");
const void *const type_info_vtable = nullptr;
extern "C" [[noreturn]] void __std_terminate()
{
    __builtin_trap();
}

#define OWN extern "C" __attribute__((noinline))
