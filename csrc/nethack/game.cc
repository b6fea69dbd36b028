#include "nethack/game.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "nethack/observation.h"
#include "nethack/tables.h"
#include "text.h"

namespace pbm::nethack {
namespace {

constexpr int kSpace = ' ';
constexpr int kEscape = 27;
constexpr int kQuit = 0x80 | 'q';          // M-q
constexpr int kOpeningPromptLimit = 1000;  // as in NLE.reset

// Questions that NLE leaves to the agent (SKIP_EXCEPTIONS in nle/env/base.py).
constexpr std::array<std::string_view, 4> kAgentQuestions = {"eat", "attack", "direction?", "pray"};

// Every array of an nle_obs that a game with buffers of its own fills.
nle_obs arrays_in(ObservationBuffers& buffers) {
  nle_obs arrays{};
  arrays.glyphs = buffers.glyphs.data();
  arrays.blstats = buffers.blstats.data();
  arrays.message = buffers.message.data();
  arrays.program_state = buffers.program_state.data();
  arrays.internal = buffers.internal.data();
  arrays.misc = buffers.misc.data();
  arrays.inv_glyphs = buffers.inv_glyphs.data();
  arrays.inv_letters = buffers.inv_letters.data();
  arrays.inv_oclasses = buffers.inv_oclasses.data();
  return arrays;
}

bool shows_terminal(const nle_obs& arrays) {
  return arrays.tty_chars != nullptr || arrays.tty_colors != nullptr || arrays.tty_cursor != nullptr;
}

}  // namespace

Game::Game(std::shared_ptr<const LibraryFile> library, GameSettings settings, std::filesystem::path directory,
           double* reward_terms)
    : Game(std::move(library), std::move(settings), std::move(directory), nle_obs{}, reward_terms) {
  obs_ = arrays_in(buffers_);
}

Game::Game(std::shared_ptr<const LibraryFile> library, GameSettings settings, std::filesystem::path directory,
           const nle_obs& arrays, double* reward_terms)
    : settings_(std::move(settings)),
      directory_(std::move(directory), settings_.data_directory),
      library_(std::move(library), settings_.clock, shows_terminal(arrays)),
      nle_settings_(std::make_unique<nle_settings>()),
      obs_(arrays),
      task_(settings_.task),
      reward_terms_row_(reward_terms) {
  copy_text(nle_settings_->hackdir, directory_.path().string(), "the path of the game's directory");
  copy_text(nle_settings_->options, settings_.options, "the string of NetHack's options");
  nle_settings_->spawn_monsters = settings_.spawn_monsters;
  nle_settings_->fix_moon_phase = settings_.fix_moon_phase;
  // What a step itself looks at, wanted or not.
  if (obs_.blstats == nullptr) obs_.blstats = buffers_.blstats.data();
  if (obs_.message == nullptr) obs_.message = buffers_.message.data();
  if (obs_.program_state == nullptr) obs_.program_state = buffers_.program_state.data();
  if (obs_.internal == nullptr) obs_.internal = buffers_.internal.data();
  if (obs_.glyphs == nullptr && (task_.reads_glyphs() || reward_terms != nullptr)) {
    obs_.glyphs = buffers_.glyphs.data();
  }
}

EndStatus Game::reset(const Seeds& seeds) {
  try {
    return begin_episode(seeds);
  } catch (const FatalGameError&) {
    give_up();
    throw;
  }
}

EndStatus Game::begin_episode(const Seeds& seeds) {
  context_.reset();
  library_.restart();
  auto& initial = nle_settings_->initial_seeds;
  initial.seeds[0] = seeds.core;
  initial.seeds[1] = seeds.disp;
  initial.reseed = 0;
  initial.use_init_seeds = true;
  initial.lgen_seed = seeds.level_generation.value_or(0);
  initial.use_lgen_seed = seeds.level_generation.has_value();
  nle_settings_->time_seed = seeds.core + 1;  // as pynethack.cc derives it, read when fix_moon_phase is set
  nle_settings_->time_seed_is_set = settings_.fix_moon_phase;

  obs_.how_done = 0;
  // A game that ends before its first screen writes none: do not read the last one's.
  std::fill_n(obs_.program_state, kProgramStateSize, 0);
  episode_ = {};
  episode_.seeds = seeds;
  context_ = library_.start(&obs_, nle_settings_.get());
  for (int tries = 0; obs_.done || obs_.program_state[kInMoveloop] == 0; ++tries) {
    if (tries == kOpeningPromptLimit || obs_.done)
      throw FatalGameError("the game ended or hung in its opening prompts");
    press(kSpace);
  }
  first_gold_ = obs_.blstats[tables::NLE_BL_GOLD];
  watch_the_living();
  if (reward_terms_row_ != nullptr) reward_terms_.begin_episode(obs_);
  return task_.begin_episode(obs_);
}

StepResult Game::step(std::int64_t action) {
  if (context_ == nullptr) throw std::logic_error("step without a running episode: call reset first");
  if (action < 0 || static_cast<std::size_t>(action) >= settings_.keys.size()) {
    throw std::out_of_range("action " + std::to_string(action) + " is not one of " +
                            std::to_string(settings_.keys.size()));
  }
  try {
    return play(settings_.keys[static_cast<std::size_t>(action)]);
  } catch (const FatalGameError&) {
    ++episode_.length;  // the step in which it happened
    give_up();
    throw;
  }
}

StepResult Game::play(int key) {
  task_.begin_step(obs_);
  StepResult result;
  press(key);
  result.limit_at_key = task_.check_limit(obs_);
  const bool prompted = prompts();
  if (obs_.program_state[kGameOver] == 1 || !settings_.allow_all_modes) pass_prompts(true);
  ++episode_.length;

  result.status = task_.end_status(obs_);
  result.reward = task_.reward(obs_, result.status);
  if (reward_terms_row_ != nullptr) reward_terms_.write(obs_, prompted, reward_terms_row_);
  result.terminated = obs_.done || result.status == EndStatus::kTaskSuccessful;
  result.truncated = !result.terminated && (result.limit_at_key || result.status == EndStatus::kAborted);
  episode_.episode_return += result.reward;
  if (result.terminated || result.truncated) {
    if (obs_.done) note_death();
    if (result.status == EndStatus::kTaskSuccessful) quit();
    episode_.score_after_end = obs_.blstats[tables::NLE_BL_SCORE];
    if (result.status == EndStatus::kAborted) quit_unseen();
    context_.reset();
  }
  return result;
}

void Game::note_death() {
  episode_.how_done = obs_.how_done;
  try {
    episode_.death = library_.death(obs_.how_done);
  } catch (const FatalGameError&) {
    // The game is over all the same; its cause stays unknown.
  }
}

void Game::give_up() noexcept {
  episode_.score_after_end = episode_.score;
  episode_.how_done = kHowDoneGivenUp;
  context_.reset();
}

void Game::press(int key) {
  obs_.action = key;
  library_.step(context_, &obs_);
  watch_the_living();
}

// NLE._perform_known_steps: page through --More--, leave text prompts, decline questions that are not the agent's.
void Game::pass_prompts(bool agent_may_answer) {
  while (!obs_.done) {
    if (obs_.internal[kWaitingForSpace]) {
      press(kSpace);
    } else if (obs_.internal[kInGetlin]) {
      press(kEscape);
    } else {
      if (obs_.internal[kInYnFunction] && !(agent_may_answer && asks_what_the_agent_may_answer())) press(kEscape);
      return;
    }
  }
}

bool Game::prompts() const noexcept {
  return !obs_.done && (obs_.internal[kWaitingForSpace] || obs_.internal[kInGetlin] || obs_.internal[kInYnFunction]);
}

// NLE._quit_game. Where the quit itself fails the game is over all the same.
void Game::quit() {
  try {
    pass_prompts(false);
    for (const int key : {kQuit, static_cast<int>('y')}) {
      if (!obs_.done) press(key);
    }
    pass_prompts(false);
  } catch (const FatalGameError&) {
    // NetHack gave up while it was left: the step that came before stands.
  }
}

// A quit that leaves the observation alone. Without it the episode would be missing from the list of the best games,
// which the terminal shows after each death; nothing else depends on it, so a game that shows no terminal skips it.
void Game::quit_unseen() {
  if (!shows_terminal(obs_)) return;
  const nle_obs shown = obs_;
  for (const ObservationKey& key : kObservationKeys) key.point(obs_, nullptr);
  ObservationBuffers unseen = buffers_;
  obs_.blstats = unseen.blstats.data();
  obs_.message = unseen.message.data();
  obs_.program_state = unseen.program_state.data();
  obs_.internal = unseen.internal.data();
  std::copy_n(shown.message, kMessageSize, obs_.message);
  std::copy_n(shown.internal, kInternalSize, obs_.internal);
  std::copy_n(shown.program_state, kProgramStateSize, obs_.program_state);
  const EpisodeRecord record = episode_;
  quit();
  episode_ = record;
  for (const ObservationKey& key : kObservationKeys) key.point(obs_, key.where(shown));
}

bool Game::asks_what_the_agent_may_answer() const {
  if (settings_.allow_all_yn_questions) return true;
  const std::string_view message(reinterpret_cast<const char*>(obs_.message), kMessageSize);
  for (const std::string_view question : kAgentQuestions) {
    if (message.find(question) != std::string_view::npos) return true;
  }
  return false;
}

void Game::watch_the_living() {
  if (!obs_.in_normal_game || obs_.program_state[kGameOver] != 0 || obs_.done) return;
  episode_.score = obs_.blstats[tables::NLE_BL_SCORE];
  episode_.turns = obs_.blstats[tables::NLE_BL_TIME];
  episode_.depth = obs_.internal[kDeepestLevel];
  episode_.gold = obs_.blstats[tables::NLE_BL_GOLD] - first_gold_;
}

}  // namespace pbm::nethack
