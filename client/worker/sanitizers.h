/* What sanitized builds of the worker's programs say to their runtime. Included by their main files only: an agent
 * starts its worker without an environment, so options can come from nowhere else. */
#ifndef CS_WORKER_SANITIZERS_H
#define CS_WORKER_SANITIZERS_H

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* gcc's name for it */
#endif
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
/* The leak check at the end of a process needs ptrace, which a confined worker has given up. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif
#ifdef __SANITIZE_THREAD__
/* An agent starts its worker without an environment. libtorch was built without the sanitizer: what it does between its
 * own threads would look like races. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1:halt_on_error=1";
}
#endif

#endif
