// Conditions of the message line: which of NetHack's phrases it holds, found in one walk over its characters.
#include <array>
#include <cstring>
#include <string_view>

#include "nethack/abi.h"
#include "nethack/conditions_facts.h"

namespace pbm::nethack {
namespace {

struct Phrase {
  std::string_view text;
  Said meaning;
};

// Phrases of NetHack 3.6.7. "!" tells a blow at the hero from one at another monster, which ends in ".".
constexpr Phrase kPhrases[] = {
    {"direction?", Said::kDirectionPrompt},
    {"What do you want to ", Said::kItemPrompt},
    {"want to eat?", Said::kEatPrompt},
    {"eat it? [", Said::kEatPrompt},
    {"Really attack ", Said::kAttackPrompt},
    {"want to pray?", Said::kPrayPrompt},
    {"It's a wall", Said::kBlocked},
    {"It's solid stone", Said::kBlocked},
    {"It's an iron bar", Said::kBlocked},
    {"You cannot pass through", Said::kBlocked},
    {"t move diagonally", Said::kDiagonalDoor},
    {"but in vain", Said::kBoulderStuck},
    {"why you cannot move it", Said::kBoulderStuck},
    {"door is locked", Said::kDoorLocked},
    {"door opens", Said::kDoorOpens},
    {"door crashes open", Said::kDoorOpens},
    {"door shatters", Said::kDoorOpens},
    {"it crashes open", Said::kDoorOpens},  // "As you kick the door, ..."
    {"it shatters to pieces", Said::kDoorOpens},
    {"You swap places", Said::kPetSwap},
    {"blocks your path", Said::kPetBlocks},
    {"in the way!", Said::kPetBlocks},
    {"You stop. ", Said::kPetBlocks},
    {" drops ", Said::kPetActs},
    {" picks up ", Said::kPetActs},
    {" eats ", Said::kPetActs},
    {"You hit ", Said::kHeroHits},
    {"You smite ", Said::kHeroHits},  // what a Barbarian does
    {"You kick the ", Said::kHeroHits},
    {"You strike ", Said::kHeroHits},
    {"from your powerful strike", Said::kHeroHits},  // "The newt staggers ..."
    {"You bite ", Said::kHeroHits},
    {"You claw ", Said::kHeroHits},
    {"You miss ", Said::kHeroMisses},
    {"You kill ", Said::kHeroKills},
    {"You destroy ", Said::kHeroKills},
    {" is killed!", Said::kSomethingDies},
    {" is destroyed!", Said::kSomethingDies},
    {" bites!", Said::kHeroHurt},
    {" hits!", Said::kHeroHurt},
    {" kicks!", Said::kHeroHurt},
    {" stings!", Said::kHeroHurt},
    {" butts!", Said::kHeroHurt},
    {" touches you", Said::kHeroHurt},
    {"You are hit by", Said::kHeroHurt},
    {"You get zapped", Said::kHeroHurt},
    {" explodes!", Said::kHeroHurt},
    {" misses!", Said::kMonsterMisses},
    {"You cannot escape from", Said::kStuck},
    {"swings itself around you", Said::kStuck},
    {"caught in a bear trap", Said::kStuck},
    {"jaws on your", Said::kStuck},
    {"You fall into a pit", Said::kStuck},
    {"You land on a set of", Said::kStuck},
    {"still in a pit", Said::kStuck},
    {"crawl to the edge", Said::kStuck},
    {"stuck to the web", Said::kStuck},
    {"stumble into a spider web", Said::kStuck},
    {"Ouch!", Said::kSelfHurt},
    {"That hurts!", Said::kSelfHurt},
    {"Dumb move!", Said::kSelfHurt},
    {"You strain a muscle", Said::kSelfHurt},
    {"thin air", Said::kThinAir},
    {"kick at empty space", Said::kThinAir},
    {"You see here ", Said::kItemHere},
    {"You feel here ", Said::kItemHere},
    {" objects here", Said::kManyHere},
    {"here is a staircase down here", Said::kStairsDownHere},
    {"here is a ladder down here", Said::kStairsDownHere},
    {"here is a staircase up here", Said::kStairsUpHere},
    {"here is a ladder up here", Said::kStairsUpHere},
    {"gold piece", Said::kGotGold},
    {"go down here", Said::kNoWayDown},
    {"go up here", Said::kNoWayUp},
    {"You finish eating", Said::kAte},
    {" is bland.", Said::kAte},
    {" is terrible!", Said::kAte},
    {" delicious!", Said::kAte},
    {" tastes ", Said::kAte},
    {"cannot eat that", Said::kCannotEat},
    {"You hear ", Said::kHears},
    {"You can see again", Said::kRecovers},
    {"You can move again", Said::kRecovers},
    {"You can hear again", Said::kRecovers},
    {"feels better", Said::kRecovers},
    {"is displeased", Said::kPrayerBad},
    {"hast angered me", Said::kPrayerBad},
    {"relearn thy lessons", Said::kPrayerBad},
    {"for sale, ", Said::kShop},
    {"Usage fee", Said::kShop},
    {"Will you please leave your", Said::kShop},
    {"You owe ", Said::kShop},
};

// Entries of a table by their first character, so that a walk over a message looks at few of them.
template <std::size_t kSize>
struct FirstCharacterIndex {
  std::array<std::uint16_t, 257> start{};
  std::array<std::uint16_t, kSize> order{};

  template <typename Entry>
  constexpr explicit FirstCharacterIndex(const Entry (&entries)[kSize]) {
    std::array<std::uint16_t, 256> count{};
    for (const Entry& entry : entries) ++count[static_cast<unsigned char>(entry.text[0])];
    for (std::size_t c = 0; c < 256; ++c) start[c + 1] = start[c] + count[c];
    std::array<std::uint16_t, 256> next{};
    for (std::size_t c = 0; c < 256; ++c) next[c] = start[c];
    for (std::size_t i = 0; i < kSize; ++i) {
      order[next[static_cast<unsigned char>(entries[i].text[0])]++] = static_cast<std::uint16_t>(i);
    }
  }

  std::span<const std::uint16_t> with(char first) const {
    const auto c = static_cast<unsigned char>(first);
    return {order.data() + start[c], static_cast<std::size_t>(start[c + 1] - start[c])};
  }
};

constexpr FirstCharacterIndex<std::size(kPhrases)> kPhraseIndex(kPhrases);
constexpr FirstCharacterIndex<std::size(tables::kNouns)> kNounIndex(tables::kNouns);

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Whether the noun, or its plural in s, stands at the front of the text as a whole word.
bool begins_with_noun(std::string_view text, std::string_view noun) {
  if (!text.starts_with(noun)) return false;
  std::size_t end = noun.size();
  if (end < text.size() && text[end] == 's') ++end;
  return end >= text.size() || !is_letter(text[end]);
}

// The kind of the first noun in "a +1 long sword (weapon in hand).": at each word the longest noun counts.
unsigned noun_kind(std::string_view phrase) {
  for (std::size_t i = 0; i < phrase.size(); ++i) {
    if (i > 0 && is_letter(phrase[i - 1])) continue;
    const tables::Noun* longest = nullptr;
    for (const std::uint16_t index : kNounIndex.with(phrase[i])) {
      const tables::Noun& noun = tables::kNouns[index];
      if (longest && noun.text.size() <= longest->text.size()) continue;
      if (begins_with_noun(phrase.substr(i), noun.text)) longest = &noun;
    }
    if (longest) return 1u << static_cast<unsigned>(longest->kind);
  }
  return 0;
}

constexpr Rule kRules[] = {
    {{"prompt_choice", "the game waits for one key: a choice, a letter or a direction"},
     [](const Facts& f) { return f.misc[0] != 0; }},
    {{"prompt_text_or_more", "the game waits for a line of text, or for a key to show more"},
     [](const Facts& f) { return f.misc[1] != 0 || f.misc[2] != 0; }},
    {{"prompt_direction", "the game asks for a direction"},
     [](const Facts& f) { return f.says(Said::kDirectionPrompt); }},
    {{"prompt_item", "the game asks for an object from the inventory, not to be eaten"},
     [](const Facts& f) { return f.says(Said::kItemPrompt) && !f.says(Said::kEatPrompt); }},
    {{"prompt_eat", "the game asks what to eat, or whether to eat what lies here"},
     [](const Facts& f) { return f.says(Said::kEatPrompt); }},
    {{"prompt_attack", "the game asks whether to attack a peaceful monster"},
     [](const Facts& f) { return f.says(Said::kAttackPrompt); }},
    {{"prompt_pray", "the game asks whether to pray"}, [](const Facts& f) { return f.says(Said::kPrayPrompt); }},
    {{"said_blocked", "the way is blocked by a wall or by stone"},
     [](const Facts& f) { return f.says(Said::kBlocked); }},
    {{"said_no_diagonal", "no diagonal move through a door"},
     [](const Facts& f) { return f.says(Said::kDiagonalDoor); }},
    {{"said_boulder_stuck", "a boulder does not move"}, [](const Facts& f) { return f.says(Said::kBoulderStuck); }},
    {{"said_door_locked", "a door is locked"}, [](const Facts& f) { return f.says(Said::kDoorLocked); }},
    {{"said_door_gives_way", "a door opens or breaks"}, [](const Facts& f) { return f.says(Said::kDoorOpens); }},
    {{"said_swapped_with_pet", "the hero swapped places with a pet"},
     [](const Facts& f) { return f.says(Said::kPetSwap); }},
    {{"said_pet_in_the_way", "a pet or a peaceful monster is in the way"},
     [](const Facts& f) { return f.says(Said::kPetBlocks); }},
    {{"said_item_moved_by_monster", "a monster or pet drops, picks up or eats something"},
     [](const Facts& f) { return f.says(Said::kPetActs); }},
    {{"said_hero_hits", "the hero hit"}, [](const Facts& f) { return f.says(Said::kHeroHits); }},
    {{"said_hero_misses", "the hero missed"}, [](const Facts& f) { return f.says(Said::kHeroMisses); }},
    {{"said_hero_kills", "the hero killed or destroyed a monster"},
     [](const Facts& f) { return f.says(Said::kHeroKills); }},
    {{"said_something_dies", "a monster was killed by another"},
     [](const Facts& f) { return f.says(Said::kSomethingDies); }},
    {{"said_hero_hurt", "a monster or missile hit the hero"}, [](const Facts& f) { return f.says(Said::kHeroHurt); }},
    {{"said_monster_misses", "a monster missed the hero"}, [](const Facts& f) { return f.says(Said::kMonsterMisses); }},
    {{"said_stuck", "a trap or a monster holds the hero"}, [](const Facts& f) { return f.says(Said::kStuck); }},
    {{"said_self_hurt", "the hero's own kick or effort hurt"}, [](const Facts& f) { return f.says(Said::kSelfHurt); }},
    {{"said_nothing_hit", "a blow or kick went into thin air"}, [](const Facts& f) { return f.says(Said::kThinAir); }},
    {{"stairs_down_underfoot",
      "the hero stands on stairs or a ladder down: the message tells, or the map showed it before"},
     [](const Facts& f) { return f.on_stairs_down; }},
    {{"stairs_up_underfoot",
      "the hero stands on stairs or a ladder up: the message tells, or the map showed it before"},
     [](const Facts& f) { return f.on_stairs_up; }},
    {{"said_gold", "the message tells of gold pieces"}, [](const Facts& f) { return f.says(Said::kGotGold); }},
    {{"said_no_stairs", "no stairs here to go that way"},
     [](const Facts& f) { return f.says(Said::kNoWayDown) || f.says(Said::kNoWayUp); }},
    {{"said_ate", "the hero ate something"}, [](const Facts& f) { return f.says(Said::kAte); }},
    {{"said_not_edible", "that cannot be eaten"}, [](const Facts& f) { return f.says(Said::kCannotEat); }},
    {{"said_sound", "the hero hears something"}, [](const Facts& f) { return f.says(Said::kHears); }},
    {{"said_recovered", "sight, hearing, movement or a leg came back"},
     [](const Facts& f) { return f.says(Said::kRecovers); }},
    {{"said_god_angry", "a prayer angered the god"}, [](const Facts& f) { return f.says(Said::kPrayerBad); }},
    {{"said_shop", "a shop's goods, fees or keeper"}, [](const Facts& f) { return f.says(Said::kShop); }},
};

}  // namespace

RuleGroup message_rules() noexcept { return rule_group<kRules>(); }

void read_message(const ObservationView& view, Facts& facts) noexcept {
  const auto* text = reinterpret_cast<const char*>(view.message);
  const std::string_view message(text, strnlen(text, kMessageSize));
  for (std::size_t i = 0; i < message.size(); ++i) {
    const std::string_view rest = message.substr(i);
    for (const std::uint16_t index : kPhraseIndex.with(message[i])) {
      const Phrase& phrase = kPhrases[index];
      if (!rest.starts_with(phrase.text)) continue;
      facts.said.set(static_cast<std::size_t>(phrase.meaning));
      if (phrase.meaning == Said::kItemHere) {
        const std::string_view object = rest.substr(phrase.text.size());
        facts.floor_nouns |= noun_kind(object.substr(0, object.find("  ")));
      }
    }
  }
  facts.on_stairs_down = facts.says(Said::kStairsDownHere);
  facts.on_stairs_up = facts.says(Said::kStairsUpHere);
}

}  // namespace pbm::nethack
