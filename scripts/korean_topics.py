"""What Korean documents speak of: topics as stages, each a choice of sentences with open places.

A place names a word list of `scripts.korean_text`, a number after it another word of the list, and what stands after
the colon is a particle or a verb ending: ``{city:은}``, ``{rest:고}``.
"""

from __future__ import annotations

PERSON = (
    (
        "{family}{person:은} {city}에 사는 {job}입니다.",
        "{person:은} {city}에서 태어난 {job}입니다.",
        "제 {relation} {person:은} {job}입니다.",
        "{city}에 {person:이라}는 {job:이} 있습니다.",
        "{person:은} {number}살이고 {city}에서 {job:으로} 일합니다.",
    ),
    (
        "취미는 {hobby:과} 요리입니다.",
        "{time}마다 {place}에서 {hobby:을} 합니다.",
        "{hobby:을} 좋아해서 {day}마다 {place}에 갑니다.",
        "{food:을} 좋아하고 {dish:을} 자주 먹습니다.",
        "어릴 때부터 {subject:을} 잘했습니다.",
    ),
    (
        "{animal} {small}마리와 함께 삽니다.",
        "집에는 {color} {thing:이} 있습니다.",
        "{other:과} 함께 {spot}에 자주 갑니다.",
        "{time}에는 {other:과} {rest:고} {food:을} {eat:ㅂ니다}.",
        "요즘은 {thing:을} {handle:는} 일에 바쁩니다.",
    ),
    (
        "사람들은 {person:을} 좋아합니다.",
        "언젠가 {town}에서 살고 싶어 합니다.",
        "그래서 {person:은} 늘 {feel:ㅂ니다}.",
        "{person}의 꿈은 {job:이} 되는 것이었습니다.",
        "{other:은} {person}에게서 {subject:을} 배웠습니다.",
    ),
)
PLACE = (
    (
        "{city}에는 {quality:ㄴ} {place:이} 있습니다.",
        "{place:은} {spot} 옆에 있습니다.",
        "우리 마을 {place:은} {quality:고} {trait:ㅂ니다}.",
        "{city}의 {place:은} {number}년 전에 세워졌습니다.",
        "이 {place:은} {month}에 문을 열었습니다.",
    ),
    (
        "그곳에는 {plant:과} {animal:이} 많습니다.",
        "안에는 {thing:이} {number}개 있습니다.",
        "{day}에는 쉬고 {time}에 사람이 많습니다.",
        "오전 {small}시에 문을 열고 오후 {small2}시에 문을 닫습니다.",
        "입구에는 {material:으로} 만든 {thing:이} 서 있습니다.",
    ),
    (
        "{season:이} 되면 {plant:이} 아름답습니다.",
        "{time:이면} {relation:과} {rest:는} 사람들이 보입니다.",
        "근처 {spot}에서는 {food:을} 팝니다.",
        "이곳의 {food:은} {taste:아서} 인기가 있습니다.",
        "{town}에서 기차로 {number}분이 걸립니다.",
    ),
    (
        "{city}에 가면 꼭 {go:아} 보세요.",
        "사람들은 이곳을 {quality:다}고 말합니다.",
        "입장료는 {small}000원입니다.",
        "아이들은 이곳에서 {hobby:을} 배웁니다.",
    ),
)
WEATHER = (
    (
        "오늘 {city}의 날씨는 {sky:ㅂ니다}.",
        "{day} {city:은} 대체로 {sky:겠습니다}.",
        "{season:이} 와서 {time}에는 {sky:ㅂ니다}.",
        "{month} {city}의 {time}은 {sky:고} {air:ㅂ니다}.",
    ),
    (
        "낮 기온은 {small}도까지 오릅니다.",
        "기온은 어제보다 {small}도 높습니다.",
        "바람이 조금 불고 구름이 많습니다.",
        "{town}에는 비가 {small}밀리미터 내립니다.",
        "{town:은} {air:지만} {city:은} {sky:ㅂ니다}.",
    ),
    (
        "{thing:과} {tool:을} 챙기는 것이 좋습니다.",
        "{place}에 가기 좋은 날입니다.",
        "{time}에는 {food:이} 생각납니다.",
        "{plant:이} 피기 시작했습니다.",
        "{day}부터는 날씨가 {air:아집니다}.",
    ),
)
PRODUCT = (
    (
        "이 {thing:은} {material:으로} 만들었습니다.",
        "{color} {thing:을} 새로 소개합니다.",
        "{city}에서 만든 {thing:은} {quality:고} {trait:ㅂ니다}.",
        "{thing} 가운데 가장 {quality:ㄴ} 것은 {color} {thing}입니다.",
    ),
    (
        "값은 {number}000원이고 무게는 {small}킬로그램입니다.",
        "길이는 {number}센티미터이고 색은 {color}입니다.",
        "{trait:아서} {relation}에게 선물하기 좋습니다.",
        "{place}에서 {number}개가 팔렸습니다.",
        "{tool:과} 함께 쓰면 더 편합니다.",
    ),
    (
        "{person:은} 이 {thing:을} {number}년 동안 썼습니다.",
        "{day}까지 {spot}에서 살 수 있습니다.",
        "{season}에 쓰기 좋은 {thing}입니다.",
        "써 본 사람들은 {quality:다}고 말합니다.",
        "고장이 나면 {city}에서 고쳐 줍니다.",
    ),
)
DIARY = (
    (
        "{day} {time}에 {relation:과} {place}에 {go:았다}.",
        "어제는 {person}의 집에 {go:았다}.",
        "오늘은 {time}부터 {sky:았다}.",
        "{season} 방학이라서 {city}에 {go:았다}.",
    ),
    (
        "{place}에서 {thing:을} {handle:고} {food:을} {eat:았다}.",
        "{person:은} {thing:을} {handle:고} 나는 {tool:을} {work:았다}.",
        "길에서 {animal:을} 보았는데 아주 {quality:았다}.",
        "{food:은} {taste:지만} {dish:은} 맛있었다.",
        "{relation:이} {food:을} 주어서 함께 {eat:았다}.",
    ),
    (
        "집에 와서 {thing:을} {handle:았다}.",
        "{relation:은} {time}까지 {rest:았다}.",
        "{subject} 숙제가 많아서 {feel:았다}.",
        "{person:과} {hobby:을} 하며 {rest:았다}.",
    ),
    (
        "참 {feel:ㄴ} 하루였다.",
        "내일도 {place}에 가고 싶다.",
        "다음에는 {other:과} 함께 가기로 했다.",
        "하루가 빨리 지나가서 {feel:았다}.",
    ),
)
DEFINITION = (
    (
        "{job:이라}는 말은 사람이 하는 일을 가리킵니다.",
        "{thing:은} {material:이나} {material2:으로} 만든 물건입니다.",
        "{animal:은} {place}에서 볼 수 있는 동물입니다.",
        "{plant:은} {season}에 볼 수 있는 식물입니다.",
        "{food:은} {season}에 많이 먹는 음식입니다.",
        "{place:은} 사람들이 모이는 곳입니다.",
    ),
    (
        "예를 들어 {person:은} {time}마다 {thing:을} {handle:ㅂ니다}.",
        "{animal:은} {plant:과} 달리 움직입니다.",
        "{food:은} {dish}보다 {taste:ㅂ니다}.",
        "{animal:은} {beast}보다 {quality:고} {trait:ㅂ니다}.",
        "{city}에서는 이것을 쉽게 볼 수 있습니다.",
    ),
    (
        "옛날 사람들도 이것을 알고 있었습니다.",
        "{subject} 시간에 이것을 배웁니다.",
        "보통 {quality:고} {trait:ㅂ니다}.",
        "크기는 {number}센티미터쯤입니다.",
        "{number}가지가 넘는 종류가 있습니다.",
    ),
)
COOKING = (
    (
        "{food:을} 만드는 법을 알려 드립니다.",
        "{relation}에게 배운 {food} 이야기입니다.",
        "{season}에는 {food:이} {taste:아서} 좋습니다.",
    ),
    (
        "먼저 {dish:을} {small}개 준비합니다.",
        "물 {small}컵을 냄비에 붓고 끓입니다.",
        "{material} 그릇에 재료를 담습니다.",
    ),
    (
        "그다음 {number}분 동안 기다립니다.",
        "소금을 조금 넣고 맛을 봅니다.",
        "너무 {taste:ㄴ} 맛이 나면 물을 더 넣습니다.",
    ),
    (
        "이제 {relation:과} 함께 맛있게 먹습니다.",
        "{color} 접시에 담으면 보기에도 좋습니다.",
        "남은 {food:은} {day}에 다시 먹어도 됩니다.",
    ),
)
DIALOGUE = (
    (
        "{person}: {day}에 뭐 해요?\n{other}: {relation:과} {place}에 {go:아요}.",
        "{person}: {food} 좋아해요?\n{other}: 네, {taste:아서} 자주 먹어요.",
        "{person}: {thing:이} 어디 있어요?\n{other}: {place}에 있어요.",
        "{person}: 오늘 날씨가 어때요?\n{other}: 아주 {sky:아요}.",
        "{person}: 이 {thing:은} 얼마예요?\n{other}: {number}000원이에요.",
        "{person}: 어디에서 왔어요?\n{other}: {city}에서 왔어요.",
    ),
    (
        "{person}: 누구와 함께 가요?\n{other}: {relation:과} 같이 가요.",
        "{person}: 몇 시에 만날까요?\n{other}: {time} {small}시가 좋아요.",
        "{person}: 그 {place:은} {quality:아요}?\n{other}: 네, {quality:고} {trait:아요}.",
        "{person}: 어제는 무엇을 했어요?\n{other}: {thing:을} {handle:고} {rest:았어요}.",
        "{person}: {subject:은} 재미있어요?\n{other}: 조금 어렵지만 재미있어요.",
    ),
    (
        "{person}: 정말 {feel:네요}.\n{other}: 저도 그래요.",
        "{person}: 그럼 {day}에 만나요.\n{other}: 네, {spot}에서 기다릴게요.",
        "{person}: 고맙습니다.\n{other}: 천만에요.",
        "{person}: {food:을} 같이 먹을까요?\n{other}: 좋아요, {dish}도 먹어요.",
    ),
)
NEWS = (
    (
        "{city}에서 {month} {number}일에 {hobby} 대회가 열립니다.",
        "{city} {place:이} {season}에 새로 문을 엽니다.",
        "{job} {person:이} 올해의 상을 받았습니다.",
        "{town:과} {city:을} 잇는 길이 생깁니다.",
    ),
    (
        "사람들은 {number}명쯤 모일 것으로 보입니다.",
        "이 일에는 {job:과} 주민 {number}명이 함께했습니다.",
        "지난해보다 {small}배 많아졌습니다.",
        "{place}에는 {thing:과} {tool:이} 놓입니다.",
    ),
    (
        "{family} {job:은} 무척 {feel:다}고 말했습니다.",
        "자세한 내용은 {spot}에서 알 수 있습니다.",
        "{day} {time}부터 누구나 참여할 수 있습니다.",
        "비가 오면 {day:으로} 미룹니다.",
    ),
)
SHOP = (
    (
        "{city} {place} 옆에 {family}씨네 가게가 있습니다.",
        "{family}씨네 가게는 {city}에 자리하고 있습니다.",
        "{person:은} {city} {place} 앞에서 작은 가게를 합니다.",
        "새로 생긴 가게를 소개합니다. 이곳은 {city}에서 만날 수 있습니다.",
    ),
    (
        "이 가게는 {food:으로} 유명합니다.",
        "{food:을} 팔고 {dish}도 팝니다.",
        "{food:이} 맛있고 {dish:이} 쌉니다.",
        "{thing:과} {tool:을} 내놓고 있습니다.",
        "{city}의 옛날 물건을 다루며 {thing:을} 소개합니다.",
    ),
    (
        "가격은 저렴한 편이고 손님이 많습니다.",
        "값은 조금 비싼 편이지만 {taste:ㅂ니다}.",
        "값이 알맞은 편이라 {relation:과} 자주 갑니다.",
        "손님들이 매긴 평점은 높은 편입니다.",
        "평점은 낮은 편이지만 자리가 넓습니다.",
        "좌석은 {number}석이며 자리가 늘 모자랍니다.",
    ),
    (
        "오전 {small}시에 문을 열고 오후 {small2}시에 문을 닫습니다.",
        "{day}에는 문을 닫으며 {time}부터 손님을 맞습니다.",
        "{day}에 쉬고 다른 날에는 문을 엽니다.",
        "그리고 {day}에 쉽니다. 참고로 {time}에는 손님이 많습니다.",
    ),
)
TOPICS = (SHOP, PERSON, PLACE, WEATHER, PRODUCT, DIARY, DEFINITION, COOKING, DIALOGUE, NEWS)
