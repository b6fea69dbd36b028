#include "actor/rollout_writer.h"

#include <algorithm>

#include "nethack/tables.h"

namespace pbm::actor {
namespace {

using nethack::kColumns;
using nethack::kRows;

constexpr auto kBeyondMap = static_cast<std::int16_t>(nethack::tables::kNoGlyph);

// The square of side `side` around (x, y).
void cut_crop(const std::int16_t* glyphs, long x, long y, std::size_t side, std::int16_t* crop) noexcept {
  const long half = static_cast<long>(side / 2), width = static_cast<long>(side);
  const long left = x - half;
  const long from = std::max(0L, -left), to = std::min(width, kColumns - left);
  for (long r = 0; r < width; ++r, crop += side) {
    const long map_row = y - half + r;
    if (map_row < 0 || map_row >= kRows || from >= to) {
      std::fill_n(crop, side, kBeyondMap);
      continue;
    }
    std::fill(crop, crop + from, kBeyondMap);
    std::copy(glyphs + map_row * kColumns + left + from, glyphs + map_row * kColumns + left + to, crop + from);
    std::fill(crop + to, crop + width, kBeyondMap);
  }
}

}  // namespace

RolloutWriter::RolloutWriter(const shm::RolloutLayout& layout) : shape_(layout.shape()), columns_(layout) {}

void RolloutWriter::begin(std::uint8_t* slot, std::uint64_t first_game) const noexcept {
  *columns_.first_game.row(slot, 0) = static_cast<std::int64_t>(first_game);
  *columns_.finals.count.row(slot, 0) = 0;
  *columns_.records.count.row(slot, 0) = 0;
}

void RolloutWriter::write_row(std::uint8_t* slot, std::size_t t, std::size_t k, PlayedGame& played) const {
  write_observation(slot, columns_.observation, cell(t, k), played);
  *columns_.first.row(slot, cell(t, k)) = played.first;
  *columns_.previous_action.row(slot, cell(t, k)) = played.previous_action;
  *columns_.episode_step.row(slot, cell(t, k)) = static_cast<std::int32_t>(played.game->episode().length);
}

void RolloutWriter::write_outcome(std::uint8_t* slot, std::size_t t, std::size_t k, const nethack::StepResult& result,
                                  const PlayedGame& played) const noexcept {
  *columns_.reward.row(slot, cell(t, k)) = static_cast<float>(result.reward);
  if (played.reward_terms) std::ranges::copy(*played.reward_terms, columns_.reward_terms.row(slot, cell(t, k)));
  *columns_.terminated.row(slot, cell(t, k)) = result.terminated;
  *columns_.truncated.row(slot, cell(t, k)) = result.truncated;
}

void RolloutWriter::write_observation(std::uint8_t* slot, const ObservationColumns& columns, std::size_t index,
                                      PlayedGame& played) const {
  const nethack::ObservationBuffers& seen = played.game->observation();
  cut_crop(seen.glyphs.data(), seen.blstats[nethack::tables::NLE_BL_X], seen.blstats[nethack::tables::NLE_BL_Y],
           shape_.crop, columns.glyph_crop.row(slot, index));
  if (shape_.store_glyphs) std::ranges::copy(seen.glyphs, columns.glyphs.row(slot, index));
  std::ranges::copy(seen.blstats, columns.blstats.row(slot, index));
  std::ranges::copy(seen.message, columns.message.row(slot, index));
  if (shape_.store_inventory) {
    std::ranges::copy(seen.inv_glyphs, columns.inv_glyphs.row(slot, index));
    std::ranges::copy(seen.inv_letters, columns.inv_letters.row(slot, index));
    std::ranges::copy(seen.inv_oclasses, columns.inv_oclasses.row(slot, index));
  }
  auto* const conditions = reinterpret_cast<std::uint64_t*>(columns.conditions.row(slot, index));
  nethack::evaluate_conditions(view_of(seen), conditions, &played.stairs);
}

void RolloutWriter::write_final(std::uint8_t* slot, std::size_t t, std::size_t k, PlayedGame& played) const {
  const FinalColumns& finals = columns_.finals;
  const auto i = static_cast<std::size_t>((*finals.count.row(slot, 0))++);
  *finals.step.row(slot, i) = static_cast<std::int32_t>(t);
  *finals.game.row(slot, i) = static_cast<std::int32_t>(k);
  *finals.previous_action.row(slot, i) = played.previous_action;
  write_observation(slot, finals.observation, i, played);
}

void RolloutWriter::write_record(std::uint8_t* slot, std::size_t t, std::size_t k,
                                 const PlayedGame& played) const noexcept {
  const nethack::EpisodeRecord& episode = played.game->episode();
  const RecordColumns& records = columns_.records;
  const auto i = static_cast<std::size_t>((*records.count.row(slot, 0))++);
  *records.step.row(slot, i) = static_cast<std::int32_t>(t);
  *records.game.row(slot, i) = static_cast<std::int32_t>(k);
  *records.how_done.row(slot, i) = episode.how_done;
  *records.score.row(slot, i) = episode.score;
  *records.score_after_end.row(slot, i) = episode.score_after_end;
  *records.length.row(slot, i) = episode.length;
  *records.depth.row(slot, i) = episode.depth;
  *records.turns.row(slot, i) = episode.turns;
  *records.seed_core.row(slot, i) = static_cast<std::int64_t>(episode.seeds.core);
  *records.seed_disp.row(slot, i) = static_cast<std::int64_t>(episode.seeds.disp);
  *records.gold.row(slot, i) = episode.gold;
  *records.episode_return.row(slot, i) = episode.episode_return;
  *records.alpha_entropy.row(slot, i) =
      played.alpha_entropy_sum / static_cast<double>(std::max<std::int64_t>(1, episode.length));
  std::uint8_t* const death = records.death.row(slot, i);
  std::fill_n(death, nethack::kDeathLength, 0);
  std::copy_n(episode.death.begin(), std::min(episode.death.size(), nethack::kDeathLength), death);
}

}  // namespace pbm::actor
