#include "nethack/game.h"

#include <cstring>
#include <fstream>
#include <string_view>

namespace pbm::nethack {
namespace {

constexpr int kSpace = ' ';
constexpr int kEscape = 27;
constexpr int kOpeningPromptLimit = 1000;  // as in NLE.reset

// Questions that NLE leaves to the agent (SKIP_EXCEPTIONS in nle/env/base.py).
constexpr std::array<std::string_view, 4> kAgentQuestions = {"eat", "attack", "direction?", "pray"};

template <std::size_t N>
void copy_text(char (&to)[N], const std::string& from, const char* what) {
  if (from.size() >= N) throw std::length_error(std::string(what) + " is too long for NetHack");
  std::memcpy(to, from.c_str(), from.size() + 1);
}

void touch(const std::filesystem::path& path) {
  std::ofstream file(path, std::ios::app);
  if (!file) throw std::runtime_error("cannot create " + path.string());
}

}  // namespace

Game::Game(std::shared_ptr<const LibraryFile> library, GameSettings settings, std::filesystem::path directory)
    : settings_(std::move(settings)),
      directory_(std::move(directory)),
      library_(std::move(library), settings_.clock),
      nle_settings_(std::make_unique<nle_settings>()) {
  std::memset(nle_settings_.get(), 0, sizeof(nle_settings));
  copy_text(nle_settings_->hackdir, directory_.string(), "the game's directory");
  copy_text(nle_settings_->options, settings_.options, "the option string");
  nle_settings_->spawn_monsters = settings_.spawn_monsters;
  nle_settings_->fix_moon_phase = settings_.fix_moon_phase;
  obs_.glyphs = buffers_.glyphs.data();
  obs_.blstats = buffers_.blstats.data();
  obs_.message = buffers_.message.data();
  obs_.program_state = buffers_.program_state.data();
  obs_.internal = buffers_.internal.data();
  obs_.misc = buffers_.misc.data();
  obs_.inv_glyphs = buffers_.inv_glyphs.data();
  obs_.inv_letters = buffers_.inv_letters.data();
  obs_.inv_oclasses = buffers_.inv_oclasses.data();
  make_directory();
}

Game::~Game() {
  close_episode();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

// The files that NetHack's lock_file and nhdat reader expect (nle.nethack.Nethack makes the same).
void Game::make_directory() const {
  std::filesystem::create_directories(directory_ / "save");
  const auto data = directory_ / "nhdat";
  if (!std::filesystem::exists(std::filesystem::symlink_status(data))) {
    std::filesystem::create_symlink(std::filesystem::path(settings_.data_directory) / "nhdat", data);
  }
  for (const char* name : {"perm", "record", "logfile", "xlogfile"}) touch(directory_ / name);
}

void Game::reset(const Seeds& seeds) {
  close_episode();
  library_.reload();
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
  buffers_.program_state.fill(0);  // a game that ends before its first screen writes none: do not read the last one's
  episode_ = EpisodeRecord{.seeds = seeds};
  frozen_steps_ = 0;
  context_ = library_.start(&obs_, nle_settings_.get());
  for (int tries = 0; obs_.done || buffers_.program_state[kInMoveloop] == 0; ++tries) {
    if (tries == kOpeningPromptLimit || obs_.done)
      throw FatalGameError("the game ended or hung in its opening prompts");
    press(kSpace);
  }
  watch_the_living();
}

StepResult Game::step(int action) {
  if (context_ == nullptr) throw std::logic_error("step without a running episode: call reset first");
  const int key = settings_.keys.at(static_cast<std::size_t>(action));
  const long old_score = buffers_.blstats[blstat::kScore];
  const long old_time = buffers_.blstats[blstat::kTime];

  press(key);
  if (buffers_.program_state[kGameOver] == 1 || !settings_.allow_all_modes) pass_prompts();
  ++episode_.length;

  StepResult result;
  result.terminated = obs_.done != 0;
  result.truncated = !result.terminated && episode_.length >= settings_.max_episode_steps;
  result.reward = reward(old_score, old_time);
  episode_.episode_return += result.reward;
  if (result.terminated || result.truncated) {
    episode_.score_after_end = buffers_.blstats[blstat::kScore];
    episode_.how_done = result.terminated ? obs_.how_done : -1;
    close_episode();
  }
  return result;
}

void Game::fail(int how_done) {
  ++episode_.length;
  episode_.score_after_end = episode_.score;
  episode_.how_done = how_done;
  close_episode();
}

void Game::press(int key) {
  obs_.action = key;
  library_.step(context_, &obs_);
  watch_the_living();
}

// NLE._perform_known_steps: page through --More--, leave text prompts, decline questions that are not the agent's.
void Game::pass_prompts() {
  while (!obs_.done) {
    if (buffers_.internal[kWaitingForSpace]) {
      press(kSpace);
    } else if (buffers_.internal[kInGetlin]) {
      press(kEscape);
    } else {
      if (buffers_.internal[kInYnFunction] && !asks_what_the_agent_may_answer()) press(kEscape);
      return;
    }
  }
}

bool Game::asks_what_the_agent_may_answer() const {
  if (settings_.allow_all_yn_questions) return true;
  const std::string_view message(reinterpret_cast<const char*>(buffers_.message.data()), buffers_.message.size());
  for (const std::string_view question : kAgentQuestions) {
    if (message.find(question) != std::string_view::npos) return true;
  }
  return false;
}

// NetHackScore._reward_fn in its "constant" penalty mode: the change of score, less a penalty while time stands still.
double Game::reward(long old_score, long old_time) {
  const long new_time = buffers_.blstats[blstat::kTime];
  frozen_steps_ = new_time == old_time ? frozen_steps_ + 1 : 0;
  double penalty = 0.0;
  if (frozen_steps_ > 0) penalty += settings_.penalty_step;
  penalty += static_cast<double>(new_time - old_time) * settings_.penalty_time;
  // Before a game starts and after it has ended blstats are zero and say nothing of the score.
  const long gained = obs_.in_normal_game ? buffers_.blstats[blstat::kScore] - old_score : 0;
  return static_cast<double>(gained) + penalty;
}

void Game::watch_the_living() {
  if (!obs_.in_normal_game || buffers_.program_state[kGameOver] != 0 || obs_.done) return;
  episode_.score = buffers_.blstats[blstat::kScore];
  episode_.turns = buffers_.blstats[blstat::kTime];
  episode_.depth = buffers_.internal[kDeepestLevel];
}

void Game::close_episode() {
  nle_ctx_t* context = std::exchange(context_, nullptr);
  if (context == nullptr) return;
  try {
    library_.end(context);
  } catch (const FatalGameError&) {
    // The episode is over and its image is reloaded or unloaded next: there is nothing left to lose.
  }
}

}  // namespace pbm::nethack
