// Reads the 21 x 79 map of glyphs: one table look-up a square, then the shape of what is known.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "nethack/abi.h"
#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

using tables::Feature;

constexpr std::uint64_t bit(Feature feature) { return std::uint64_t{1} << static_cast<unsigned>(feature); }

constexpr std::uint64_t kOccupied =
    bit(Feature::kMonster) | bit(Feature::kPet) | bit(Feature::kUnseen) | bit(Feature::kItem) | bit(Feature::kTrap);
constexpr std::uint64_t kPassable = kOccupied | bit(Feature::kWalkable);

// What the shape of the map needs to know of a square.
enum Square : std::uint8_t { kStone = 1, kOpenRoom = 2, kCorridorSquare = 4, kContinues = 8, kFloorSquare = 16 };

constexpr std::uint8_t square_of(std::uint64_t features) {
  std::uint8_t square = 0;
  const bool corridor = (features & bit(Feature::kCorridor)) != 0;
  if (features & bit(Feature::kStone)) square |= kStone;
  if ((features & bit(Feature::kWalkable)) && !corridor) square |= kOpenRoom;
  if (corridor) square |= kCorridorSquare;
  if (features & (kPassable | bit(Feature::kClosedDoor))) square |= kContinues;
  if (features & bit(Feature::kFloor)) square |= kFloorSquare;
  return square;
}

struct GlyphTable {
  std::array<std::uint64_t, tables::kGlyphCount> features{};
  std::array<std::uint8_t, tables::kGlyphCount> squares{};
};

constexpr GlyphTable expand_glyph_table() {
  GlyphTable table;
  std::size_t glyph = 0;
  for (const tables::Run& run : tables::kGlyphFeatureRuns) {
    for (int i = 0; i < run.count; ++i, ++glyph) {
      table.features[glyph] = run.value;
      table.squares[glyph] = square_of(run.value);
    }
  }
  return table;
}

constinit const GlyphTable kGlyphs = expand_glyph_table();

// An index into the table whatever the observation holds: glyphs out of range show nothing, like NO_GLYPH.
std::size_t index_of(std::int16_t glyph) {
  const auto index = static_cast<std::size_t>(static_cast<std::uint16_t>(glyph));
  return index < tables::kGlyphCount ? index : tables::kNoGlyph;
}

// The map with a border of nothing, so that every square has eight neighbours.
using Squares = std::array<std::array<std::uint8_t, kColumns + 2>, kRows + 2>;

// A monster glyph is its index, for one detected from afar plus an offset.
int monster_index(std::size_t glyph) {
  return static_cast<int>(glyph) - (glyph >= tables::kDetectedOffset ? tables::kDetectedOffset : 0);
}

void note_creature(std::size_t glyph, int distance, Facts& facts) {
  if (kGlyphs.features[glyph] & bit(Feature::kPet)) {
    facts.nearest_pet = std::min(facts.nearest_pet, distance);
    return;
  }
  const int monster = monster_index(glyph);
  const int difficulty = tables::kMonsterDifficulty[monster];
  ++facts.monsters_shown;
  facts.kinds_shown |= tables::kMonsterKinds[monster];
  facts.nearest_monster = std::min(facts.nearest_monster, distance);
  facts.hardest_shown = std::max(facts.hardest_shown, difficulty);
  if (distance > 1) return;
  ++facts.monsters_adjacent;
  facts.kinds_adjacent |= tables::kMonsterKinds[monster];
  facts.hardest_adjacent = std::max(facts.hardest_adjacent, difficulty);
}

// Squares of the map in which the shape of the corridors is looked for.
struct Corridors {
  std::array<std::uint16_t, kRows * kColumns> square;  // row * kColumns + column
  int count = 0;
};

constexpr std::uint64_t kStairs = bit(Feature::kStairsDown) | bit(Feature::kStairsUp);

void note_stairs(std::uint64_t features, int row, int column, Facts& facts) {
  if (facts.stairs_shown == static_cast<int>(facts.stairs.size())) return;
  facts.stairs[facts.stairs_shown++] = {static_cast<std::int16_t>(column), static_cast<std::int16_t>(row),
                                        (features & bit(Feature::kStairsDown)) != 0};
}

void read_square(std::size_t glyph, int row, int column, int distance, Corridors& corridors, Facts& facts) {
  const std::uint64_t features = kGlyphs.features[glyph];
  ++facts.squares_known;
  if (features & bit(Feature::kCorridor)) {
    corridors.square[corridors.count++] = static_cast<std::uint16_t>(row * kColumns + column);
  }
  facts.shown |= features;
  if (distance == 1) facts.adjacent |= features;
  if (features & kStairs) note_stairs(features, row, column, facts);
  if (features & (bit(Feature::kMonster) | bit(Feature::kPet))) note_creature(glyph, distance, facts);
}

constexpr std::uint64_t kFourStones = std::uint64_t{tables::kStoneGlyph} * 0x0001000100010001;

void read_squares(const std::int16_t* glyphs, int x, int y, Squares& squares, Corridors& corridors, Facts& facts) {
  for (int row = 0; row < kRows; ++row, glyphs += kColumns) {
    std::uint8_t* out = &squares[row + 1][1];
    for (int column = 0; column < kColumns;) {
      std::uint64_t four = 0;
      if (column + 4 <= kColumns) std::memcpy(&four, glyphs + column, sizeof four);
      if (four == kFourStones) {  // most of a map is blank
        std::memset(out + column, kStone, 4);
        column += 4;
        continue;
      }
      const int end = std::min(column + 4, kColumns);
      for (; column < end; ++column) {
        const std::size_t glyph = index_of(glyphs[column]);
        out[column] = kGlyphs.squares[glyph];
        if (out[column] == kStone) continue;
        const int distance = std::max(std::abs(row - y), std::abs(column - x));
        if (distance > 0) {
          read_square(glyph, row, column, distance, corridors, facts);
        } else {
          ++facts.squares_known;
        }
      }
    }
  }
}

// Whether a square of a room borders on stone above, below, left or right of it.
bool has_room_frontier(const Squares& squares) {
  std::uint8_t found = 0;
  for (int row = 1; row <= kRows; ++row) {
    for (int column = 1; column <= kColumns; ++column) {
      const std::uint8_t beyond =
          squares[row - 1][column] | squares[row + 1][column] | squares[row][column - 1] | squares[row][column + 1];
      found |= static_cast<std::uint8_t>((squares[row][column] >> 1) & beyond & kStone);
    }
  }
  return found != 0;
}

// The number of neighbours through which a way goes on; row and column count the border.
int continuations(const Squares& squares, int row, int column) {
  int count = -static_cast<int>((squares[row][column] & kContinues) != 0);
  for (int r = row - 1; r <= row + 1; ++r) {
    for (int c = column - 1; c <= column + 1; ++c) count += (squares[r][c] & kContinues) != 0;
  }
  return count;
}

bool has_corridor_end(const Squares& squares, const Corridors& corridors) {
  return std::any_of(corridors.square.begin(), corridors.square.begin() + corridors.count, [&squares](int square) {
    return continuations(squares, square / kColumns + 1, square % kColumns + 1) <= 1;
  });
}

// A throw or a shot can reach about this far (dothrow.c: half the strength for a light missile; BOLT_LIM 8).
constexpr int kThrowRange = 8;

bool monster_along(const std::int16_t* glyphs, int x, int y, int dx, int dy) {
  for (int step = 1; step <= kThrowRange; ++step) {
    x += dx;
    y += dy;
    if (x < 0 || x >= kColumns || y < 0 || y >= kRows) return false;
    const std::uint64_t features = kGlyphs.features[index_of(glyphs[y * kColumns + x])];
    if (features & bit(Feature::kMonster)) return step > 1;
    if ((features & kPassable) == 0) return false;
  }
  return false;
}

void read_neighbours(const Squares& squares, int x, int y, Facts& facts) {
  facts.open_neighbours = continuations(squares, y + 1, x + 1);
  for (int row = y; row <= y + 2; ++row) {
    for (int column = x; column <= x + 2; ++column) {
      if (row == y + 1 && column == x + 1) continue;
      facts.floor_neighbours += (squares[row][column] & kFloorSquare) != 0;
      facts.corridor_neighbours += (squares[row][column] & kCorridorSquare) != 0;
    }
  }
}

}  // namespace

void read_map(const ObservationView& view, Facts& facts) noexcept {
  // A hero off the map, which no game shows, is next to nothing.
  const auto x = static_cast<int>(std::clamp<std::int64_t>(view.blstats[tables::NLE_BL_X], -kColumns, 2 * kColumns));
  const auto y = static_cast<int>(std::clamp<std::int64_t>(view.blstats[tables::NLE_BL_Y], -kRows, 2 * kRows));
  Squares squares{};
  Corridors corridors;
  read_squares(view.glyphs, x, y, squares, corridors, facts);
  facts.room_frontier = has_room_frontier(squares);
  facts.corridor_end = has_corridor_end(squares, corridors);
  if (x < 0 || x >= kColumns || y < 0 || y >= kRows) return;
  read_neighbours(squares, x, y, facts);
  if (facts.monsters_shown == 0) return;
  for (int dy = -1; dy <= 1; ++dy) {
    for (int dx = -1; dx <= 1; ++dx) {
      if (dx != 0 || dy != 0) facts.monster_in_line |= monster_along(view.glyphs, x, y, dx, dy);
    }
  }
}

void read_inventory(const ObservationView& view, Facts& facts) noexcept {
  for (int slot = 0; slot < kInventorySize; ++slot) {
    if (view.inv_letters[slot] == 0) break;
    ++facts.stacks;
    facts.carried |= kGlyphs.features[index_of(view.inv_glyphs[slot])];
    if (view.inv_oclasses[slot] < 32) facts.carried_classes |= std::uint32_t{1} << view.inv_oclasses[slot];
  }
}

}  // namespace pbm::nethack
