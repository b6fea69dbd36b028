// Calls within libnethack without a detour through a table of addresses.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pbm::nethack {

// The library calls its own functions through the procedure linkage table: a jump to an address that lies in .got.plt,
// which every copy has for itself, so that a step reads some 120 cache lines of it. This turns those jumps into direct
// ones, which are the same in every copy, and returns how many. Left as they are: functions for which `keep` says so,
// and those that the process itself defines, because the loader binds them there.
//
// `image` are the bytes of the file. Changes nothing where the table does not look as expected.
std::size_t call_directly(std::vector<std::uint8_t>& image, bool (*keep)(std::string_view name));

}  // namespace pbm::nethack
