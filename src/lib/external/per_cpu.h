#ifndef PER_CPU_H
#define PER_CPU_H

/* PER_CPU before a function: gcc builds it for several instruction sets and picks at load time, so that a build travels. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define PER_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PER_CPU
#endif

/* ALWAYS_INLINE before a function: it becomes part of those that call it, built for the same instructions. */
#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

#endif
