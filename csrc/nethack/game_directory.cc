#include "nethack/game_directory.h"

#include <fstream>
#include <system_error>
#include <utility>

#include "system_call.h"

namespace pbm::nethack {
namespace {

void touch(const std::filesystem::path& path) {
  const std::ofstream file(path, std::ios::app);
  if (!file) throw_errno("cannot create " + path.string());
}

}  // namespace

GameDirectory::GameDirectory(std::filesystem::path path, const std::filesystem::path& data_directory)
    : path_(std::move(path)) {
  std::filesystem::create_directories(path_ / "save");
  try {
    fill(data_directory);
  } catch (...) {
    remove();
    throw;
  }
}

GameDirectory::~GameDirectory() { remove(); }

// The files that NetHack's lock_file and nhdat reader expect (nle.nethack.Nethack makes the same).
void GameDirectory::fill(const std::filesystem::path& data_directory) const {
  const auto data = path_ / "nhdat";
  if (!std::filesystem::exists(std::filesystem::symlink_status(data))) {
    std::filesystem::create_symlink(data_directory / "nhdat", data);
  }
  for (const char* name : {"perm", "record", "logfile", "xlogfile"}) touch(path_ / name);
}

void GameDirectory::remove() const noexcept {
  std::error_code ignored;  // what cannot be removed stays: there is nobody to tell
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace pbm::nethack
