// The folder in which one game keeps NetHack's own files: levels, locks, records.
#pragma once

#include <filesystem>

namespace pbm::nethack {

class GameDirectory {
 public:
  // Makes it with what NetHack expects there; `data_directory` holds nhdat. Throws std::system_error when it cannot.
  GameDirectory(std::filesystem::path path, const std::filesystem::path& data_directory);
  ~GameDirectory();  // removes it
  GameDirectory(const GameDirectory&) = delete;
  GameDirectory& operator=(const GameDirectory&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  void fill(const std::filesystem::path& data_directory) const;
  void remove() const noexcept;

  std::filesystem::path path_;
};

}  // namespace pbm::nethack
