/* The copy: by one thread or by two, with plain or with streaming stores, whichever was fastest here. Which
 * one that is differs by machine and by what else runs, so every way is tried on a part of a large copy; the
 * tries are part of the work. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "snapshot/snapshot.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

enum {
  WAYS = 4,                /* bit 0: streaming stores; bit 1: two threads */
  COPIES_TO_REMEMBER = 32, /* then the ways are tried again */
};
static const size_t kSlice = 512 * KIB;    /* what a thread takes at a time */
static const size_t kTrial = 8 * MIB;      /* the least that tells the ways apart */
static const size_t kStreamFrom = 2 * KIB; /* below it, the ends that are not aligned cost more than is won */

/* A place in the run of all bytes. */
typedef struct place {
  size_t item, offset;
} place;

typedef struct job {
  char* base;
  const bitctl_copy* items;
  size_t count;
  int streaming;
  place next;
  size_t left; /* bytes that may still be taken */
} job;

/* The second thread: parked between copies, started by the first copy that wants it. */
static struct {
  pthread_mutex_t mutex; /* guards the rest, and the job's place */
  pthread_cond_t wake, done;
  job* offered;
  int started, working;
} helper = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, 0};

static int forced_way = -1;
static double cost[WAYS]; /* nanoseconds a byte; 0: not known */
static unsigned copies;

static void stream(char* to, const char* from, size_t bytes) {
#ifdef __SSE2__
  const size_t head = -(uintptr_t)to & 63;
  memcpy(to, from, head);
  to += head, from += head, bytes -= head;
  for (; bytes >= 64; to += 64, from += 64, bytes -= 64) {
    const __m128i a = _mm_loadu_si128((const __m128i*)from);
    const __m128i b = _mm_loadu_si128((const __m128i*)from + 1);
    const __m128i c = _mm_loadu_si128((const __m128i*)from + 2);
    const __m128i d = _mm_loadu_si128((const __m128i*)from + 3);
    _mm_stream_si128((__m128i*)to, a);
    _mm_stream_si128((__m128i*)to + 1, b);
    _mm_stream_si128((__m128i*)to + 2, c);
    _mm_stream_si128((__m128i*)to + 3, d);
  }
#endif
  memcpy(to, from, bytes);
}

/* Takes up to a slice: its bytes, 0 where nothing is left. */
static size_t take(job* work, place* from) {
  pthread_mutex_lock(&helper.mutex);
  *from = work->next;
  const size_t bytes = work->left < kSlice ? work->left : kSlice;
  work->left -= bytes;
  for (size_t ahead = bytes; ahead > 0;) {
    const size_t rest = work->items[work->next.item].bytes - work->next.offset;
    if (ahead < rest) {
      work->next.offset += ahead;
      break;
    }
    ahead -= rest;
    work->next = (place){work->next.item + 1, 0};
  }
  pthread_mutex_unlock(&helper.mutex);
  return bytes;
}

static void work_on(job* work) {
  place at;
  for (size_t bytes; (bytes = take(work, &at)) > 0;) {
    while (bytes > 0) {
      const bitctl_copy* item = &work->items[at.item];
      const size_t rest = item->bytes - at.offset, piece = bytes < rest ? bytes : rest;
      char* to = work->base + item->to + at.offset;
      const char* from = (const char*)item->from + at.offset;
      if (work->streaming && piece >= kStreamFrom)
        stream(to, from, piece);
      else
        memcpy(to, from, piece);
      bytes -= piece;
      at = (place){at.item + 1, 0};
    }
  }
#ifdef __SSE2__
  _mm_sfence();
#endif
}

static void* help(void* unused) {
  pthread_mutex_lock(&helper.mutex);
  for (;;) {
    while (helper.offered == NULL) pthread_cond_wait(&helper.wake, &helper.mutex);
    job* work = helper.offered;
    helper.offered = NULL;
    helper.working = 1;
    pthread_mutex_unlock(&helper.mutex);
    work_on(work);
    pthread_mutex_lock(&helper.mutex);
    helper.working = 0;
    pthread_cond_signal(&helper.done);
  }
  return unused;
}

/* A forked child has none of its parent's threads, and maybe a mutex that nobody will release. */
static void forget_helper(void) {
  helper.started = helper.working = 0;
  helper.offered = NULL;
  pthread_mutex_init(&helper.mutex, NULL);
  pthread_cond_init(&helper.wake, NULL);
  pthread_cond_init(&helper.done, NULL);
}

static int has_helper(void) {
  static int registered;
  if (helper.started) return 1;
  if (!registered) registered = pthread_atfork(NULL, NULL, forget_helper) == 0;
  if (!registered) return 0;
  pthread_t thread;
  sigset_t all, before;
  sigfillset(&all); /* the trainer's signals are for its own threads */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  helper.started = pthread_create(&thread, NULL, help, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (helper.started) pthread_detach(thread);
  return helper.started;
}

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Goes on with the job for at most `bytes`. */
static void go_on(job* work, size_t bytes, int way) {
  const int two = (way & 2) && bytes > kSlice && has_helper();
  const double begun = now_ns();
  work->left = bytes;
  work->streaming = way & 1;
  if (two) {
    pthread_mutex_lock(&helper.mutex);
    helper.offered = work;
    pthread_cond_signal(&helper.wake);
    pthread_mutex_unlock(&helper.mutex);
  }
  work_on(work);
  if (two) {
    pthread_mutex_lock(&helper.mutex);
    helper.offered = NULL; /* where it has not woken yet, it is not waited for */
    while (helper.working) pthread_cond_wait(&helper.done, &helper.mutex);
    pthread_mutex_unlock(&helper.mutex);
  }
  if (bytes >= kTrial) cost[way] = (now_ns() - begun) / (double)bytes;
}

static int ways_here(void) {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) > 1 ? WAYS : WAYS / 2;
}

static int cheapest(int ways) {
  int best = 0;
  for (int way = 1; way < ways; ++way)
    if (cost[way] > 0 && (cost[best] <= 0 || cost[way] < cost[best])) best = way;
  return best;
}

void bitctl_snapshot_copy(void* base, const bitctl_copy* items, size_t count) {
  job work = {.base = base, .items = items, .count = count};
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += items[i].bytes;
  const int ways = ways_here();
  if (forced_way >= 0) {
    go_on(&work, total, forced_way);
    return;
  }
  if (total >= kTrial && ++copies % COPIES_TO_REMEMBER == 0) memset(cost, 0, sizeof cost);
  size_t done = 0;
  const size_t trial = total / 16 > kTrial ? total / 16 : kTrial;
  for (int way = 0; way < ways && total - done >= trial; ++way) {
    if (cost[way] > 0) continue;
    go_on(&work, trial, way);
    done += trial;
  }
  if (done < total) go_on(&work, total - done, cheapest(ways));
}

void bitctl_snapshot_force(int threads, int streaming) {
  forced_way = threads <= 0 ? -1 : (threads > 1 ? 2 : 0) | (streaming ? 1 : 0);
}
