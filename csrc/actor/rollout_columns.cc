#include "actor/rollout_columns.h"

namespace pbm::actor {
namespace {

// Leading dimensions of a row: of a slot's single numbers and lists, and of what there is for each step and game.
constexpr std::size_t kEntry = 1, kStepAndGame = 2;

}  // namespace

ObservationColumns::ObservationColumns(const shm::RolloutLayout& layout, const std::string& prefix, std::size_t leading)
    : glyph_crop(layout, prefix + "glyph_crop", leading),
      blstats(layout, prefix + "blstats", leading),
      message(layout, prefix + "message", leading),
      conditions(layout, prefix + "conditions", leading) {
  if (layout.shape().store_glyphs) glyphs = {layout, prefix + "glyphs", leading};
  if (!layout.shape().store_inventory) return;
  inv_glyphs = {layout, prefix + "inv_glyphs", leading};
  inv_letters = {layout, prefix + "inv_letters", leading};
  inv_oclasses = {layout, prefix + "inv_oclasses", leading};
}

FinalColumns::FinalColumns(const shm::RolloutLayout& layout)
    : count(layout, "final_count", kEntry),
      step(layout, "final_step", kEntry),
      game(layout, "final_game", kEntry),
      previous_action(layout, "final_previous_action", kEntry),
      observation(layout, "final_", kEntry) {}

RecordColumns::RecordColumns(const shm::RolloutLayout& layout)
    : count(layout, "record_count", kEntry),
      step(layout, "record_step", kEntry),
      game(layout, "record_game", kEntry),
      how_done(layout, "record_how_done", kEntry),
      score(layout, "record_score", kEntry),
      score_after_end(layout, "record_score_after_end", kEntry),
      length(layout, "record_length", kEntry),
      depth(layout, "record_depth", kEntry),
      turns(layout, "record_turns", kEntry),
      seed_core(layout, "record_seed_core", kEntry),
      seed_disp(layout, "record_seed_disp", kEntry),
      gold(layout, "record_gold", kEntry),
      episode_return(layout, "record_return", kEntry),
      alpha_entropy(layout, "record_alpha_entropy", kEntry),
      death(layout, "record_death", kEntry) {}

RolloutColumns::RolloutColumns(const shm::RolloutLayout& layout)
    : first_game(layout, "first_game", kEntry),
      observation(layout, "", kStepAndGame),
      first(layout, "first", kStepAndGame),
      previous_action(layout, "previous_action", kStepAndGame),
      episode_step(layout, "episode_step", kStepAndGame),
      action(layout, "action", kStepAndGame),
      alpha(layout, "alpha", kStepAndGame),
      reward(layout, "reward", kStepAndGame),
      terminated(layout, "terminated", kStepAndGame),
      truncated(layout, "truncated", kStepAndGame),
      finals(layout),
      records(layout) {
  if (layout.shape().store_reward_terms) reward_terms = {layout, "reward_terms", kStepAndGame};
}

}  // namespace pbm::actor
