// The binary interface of libnethack.so as nle 1.3.0 ships it. The wheel brings no headers, so the structures are
// declared here, field for field as in that release's include/nletypes.h. `nle_settings` is copied whole inside the
// library: its size must match exactly, which is why other releases are refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace pbm::nethack {

inline constexpr int kRows = 21;     // ROWNO
inline constexpr int kColumns = 79;  // COLNO - 1: column 0 is never used
inline constexpr int kMapSize = kRows * kColumns;
inline constexpr int kBlstatsSize = 27;
inline constexpr int kMessageSize = 256;
inline constexpr int kProgramStateSize = 6;
inline constexpr int kInternalSize = 9;
inline constexpr int kMiscSize = 3;
inline constexpr int kInventorySize = 55;
inline constexpr int kTextLength = 80;            // of an inventory string, and of a square's description
inline constexpr std::size_t kDeathLength = 100;  // DTHSZ: of a cause of death in NetHack's own record
inline constexpr int kTerminalRows = 24, kTerminalColumns = 80;

// Indices into program_state and internal.
inline constexpr int kGameOver = 0, kInMoveloop = 3;
inline constexpr int kDeepestLevel = 0, kInYnFunction = 1, kInGetlin = 2, kWaitingForSpace = 3, kStairsDown = 4,
                     kHunger = 7;

// game_end_types of hack.h.
inline constexpr int kGenocided = 10, kAscended = 15;

extern "C" {

struct nle_obs {
  int action;
  int done;
  char in_normal_game;  // whether glyphs, blstats and the like hold a game
  int how_done;         // game_end_types of hack.h
  std::int16_t* glyphs;
  std::uint8_t* chars;
  std::uint8_t* colors;
  std::uint8_t* specials;
  long* blstats;
  std::uint8_t* message;
  int* program_state;
  int* internal;
  std::int16_t* inv_glyphs;
  std::uint8_t* inv_strs;
  std::uint8_t* inv_letters;
  std::uint8_t* inv_oclasses;
  std::uint8_t* screen_descriptions;
  std::uint8_t* tty_chars;
  std::int8_t* tty_colors;
  std::uint8_t* tty_cursor;
  int* misc;
};

struct nle_seeds_init_t {
  unsigned long seeds[2];  // core, disp
  char reseed;
  bool use_init_seeds;
  unsigned long lgen_seed;
  bool use_lgen_seed;
};

struct nle_settings {
  char hackdir[4096];
  char scoreprefix[4096];
  char options[32768];
  char wizkit[4096];
  int spawn_monsters;
  char ttyrecname[4096];
  nle_seeds_init_t initial_seeds;
  bool fix_moon_phase;
  unsigned long time_seed;
  bool time_seed_is_set;
};

struct nle_ctx_t;  // opaque

using nle_start_t = nle_ctx_t* (*)(nle_obs*, std::FILE*, nle_settings*);
using nle_step_t = nle_ctx_t* (*)(nle_ctx_t*, nle_obs*);
using nle_end_t = void (*)(nle_ctx_t*);
using nle_yield_t = void* (*)(void*);
using formatkiller_t = void (*)(char* text, unsigned size, int how, signed char with_helplessness);
}

static_assert(sizeof(nle_obs) == 152);
static_assert(sizeof(nle_seeds_init_t) == 40);
static_assert(sizeof(nle_settings) == 49224);

}  // namespace pbm::nethack
