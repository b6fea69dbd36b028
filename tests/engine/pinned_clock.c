// Preloaded into the oracle's process: NLE's own copies of NetHack see the clock that the engine pins.
#include <time.h>

time_t time(time_t* out) {
  if (out) *out = 1600000000;
  return 1600000000;
}

struct tm* localtime(const time_t* when) {
  static struct tm broken_down;
  return gmtime_r(when, &broken_down);
}
