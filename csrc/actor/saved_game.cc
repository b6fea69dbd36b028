#include "actor/saved_game.h"

#include "fingerprint.h"
#include "nethack/conditions.h"

namespace pbm::actor {
namespace {

std::uint64_t fingerprint(const nethack::Game& game) noexcept {
  const nethack::ObservationBuffers& seen = game.observation();
  const nethack::EpisodeRecord& episode = game.episode();
  Fingerprint all;
  all.add(seen.glyphs.data(), seen.glyphs.size());
  all.add(seen.blstats.data(), seen.blstats.size());
  all.add(seen.message.data(), seen.message.size());
  all.add(seen.inv_glyphs.data(), seen.inv_glyphs.size());
  all.add(&episode.score, 1);
  all.add(&episode.turns, 1);
  all.add(&episode.length, 1);
  all.add(&episode.episode_return, 1);
  return all.value();
}

// False when an action does not exist, or ends the episode.
bool play_actions(PlayedGame& played, const std::vector<std::uint8_t>& chosen, std::size_t actions) {
  std::vector<std::uint64_t> unused(nethack::condition_words());
  for (const std::uint8_t action : chosen) {
    if (action >= actions) return false;
    // For the memory of the stairs, which takes every observation.
    nethack::evaluate_conditions(view_of(played.game->observation()), unused.data(), &played.stairs);
    const nethack::StepResult result = played.game->step(action);
    if (result.terminated || result.truncated) return false;
  }
  return true;
}

}  // namespace

SavedGame save_game(const PlayedGame& played, bool begun) {
  SavedGame saved;
  saved.next_episode = played.next_episode;
  saved.begun = begun;
  if (!begun) return saved;
  const nethack::EpisodeRecord& episode = played.game->episode();
  saved.whole = played.actions.size() == static_cast<std::size_t>(episode.length);
  saved.seeds = episode.seeds;
  saved.frozen_steps = played.frozen_steps;
  if (saved.whole) saved.actions = played.actions;
  saved.alpha_entropy_sum = played.alpha_entropy_sum;
  saved.fingerprint = fingerprint(*played.game);
  return saved;
}

bool replay(PlayedGame& played, const SavedGame& saved, std::size_t actions) {
  if (!saved.whole) return false;
  played.game->task().set_frozen_steps(saved.frozen_steps);
  played.stairs.forget();
  try {
    played.game->reset(saved.seeds);
    if (!play_actions(played, saved.actions, actions)) return false;
  } catch (const nethack::FatalGameError&) {
    return false;
  }
  played.frozen_steps = saved.frozen_steps;
  played.actions = saved.actions;
  played.alpha_entropy_sum = saved.alpha_entropy_sum;
  played.first = saved.actions.empty();
  played.previous_action = played.first ? static_cast<std::int32_t>(actions) : saved.actions.back();
  return fingerprint(*played.game) == saved.fingerprint;
}

}  // namespace pbm::actor
