/* large_frames.h: tests hold whole reports and a program's output in automatic variables; what they test does not. */
#ifndef LH_TESTS_LARGE_FRAMES_H
#define LH_TESTS_LARGE_FRAMES_H

#if defined __GNUC__
#pragma GCC diagnostic ignored "-Wframe-larger-than="
#endif

#endif
