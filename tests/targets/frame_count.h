/* What a renderer tells of its frames beside what they show: how many it drew under a debugger, and how fast. */
#ifndef FRAME_COUNT_H
#define FRAME_COUNT_H

#include <stdio.h>
#include <windows.h>

static unsigned frames, frames_debugged;
static LARGE_INTEGER first_frame, last_frame;

/* At the end of each. */
static void count_frame(void)
{
    QueryPerformanceCounter(frames++ ? &last_frame : &first_frame);
    frames_debugged += IsDebuggerPresent() != 0;
}

static void tell_frames(void)
{
    LARGE_INTEGER second;
    QueryPerformanceFrequency(&second);
    double seconds = (double)(last_frame.QuadPart - first_frame.QuadPart) / (double)second.QuadPart;
    fprintf(stderr, "%u frames, %u of them debugged; %.1f frames per second\n", frames, frames_debugged,
            (frames - 1) / seconds);
}

#endif
