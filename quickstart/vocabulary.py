"""Words of the quickstart rows. Values stand in sentences as they are written here, letter for letter."""

from __future__ import annotations


def words(line: str) -> tuple[str, ...]:
    """Cut a line at its commas."""
    return tuple(line.split(", "))


ENGLISH_NAMES = (
    words(
        "Blue, Green, Golden, Silver, Little, Old, Happy, Quiet, Bright, Red, White, Sunny, Lucky, Royal, "
        "Wild, Early, Warm, Clear, Morning, Summer, Winter, River, Stone, Paper, Rose, Garden"
    ),
    words(
        "Fox, Oak, Lantern, Bridge, Star, Moon, Table, House, Door, Bell, Apple, Tree, Leaf, Bird, Cloud, "
        "Harbor, Corner, Spoon, Window, Road, Field, Owl, Lion, Crown, Wave, Hill"
    ),
)
"""First and second halves of a name; every pair is a name."""

KOREAN_NAMES = (
    words(
        "한빛, 푸른, 하얀, 작은, 큰, 새벽, 아침, 저녁, 봄날, 여름, 가을, 겨울, 하늘, 바다, 구름, 달빛, 별빛, "
        "햇살, 은빛, 금빛, 솔잎, 들꽃, 행복한, 고요한, 따뜻한, 반가운"
    ),
    words(
        "나무, 마당, 등대, 정원, 다리, 언덕, 바람, 노래, 이야기, 우물, 창문, 식탁, 의자, 숲길, 호수, 고래, "
        "토끼, 여우, 참새, 사슴, 나루, 마을, 골목, 우산, 연필, 종이"
    ),
)

ENGLISH_KINDS = {
    "food": words(
        "bakery, cafe, restaurant, diner, pub, bistro, tea house, noodle shop, soup kitchen, pizza place, "
        "food stall, snack bar"
    ),
    "goods": words(
        "gift shop, corner shop, market stall, village store, craft store, street market, second-hand store, "
        "boutique, family store, department store, night market"
    ),
    "theme": words(
        "museum, gallery, library, theater, cinema, art school, culture center, exhibition hall, science center"
    ),
}
"""What a place offers -> the kinds of places that offer it."""

KOREAN_KINDS = {
    "food": words("카페, 식당, 찻집, 분식집, 국숫집, 밥집, 주점, 떡집, 빵집, 휴게소, 포장마차, 작은 식당"),
    "goods": words(
        "상점, 잡화점, 선물가게, 소품점, 만물상, 벼룩시장, 공방, 백화점, 기념품점, 재활용가게, 야시장, 마을 가게"
    ),
    "theme": words("박물관, 미술관, 도서관, 극장, 영화관, 전시관, 기념관, 문화관, 과학관, 체험관"),
}

ENGLISH_OFFERS = {
    "food": words(
        "bread, soup, noodles, rice cakes, apple pie, green tea, fresh fish, pasta, pizza, salad, coffee, "
        "cheese, dumplings, rice bowls, hot chocolate, fried chicken, pancakes, vegetable curry, sandwiches, "
        "roast beef, ice cream, lemon cake, tomato soup, honey cookies, seafood, tofu stew"
    ),
    "goods": words(
        "old books, roses, wooden toys, leather shoes, small gifts, guitars, straw hats, used bikes, "
        "garden tools, writing paper, oil paints, maps, lamps, candles, clocks, cups and plates, wool scarves, "
        "picture books, records, house plants"
    ),
    "theme": words(
        "local history, modern art, old films, folk music, space travel, sea life, photography, ancient coins, "
        "children's books, dance, paper art, trains, wild birds, the city's past, world maps, stone tools, "
        "classical music, short films"
    ),
}

KOREAN_OFFERS = {
    "food": words(
        "식빵, 칼국수, 떡볶이, 김밥, 비빔밥, 된장찌개, 녹차, 커피, 사과파이, 만두, 냉면, 수제비, 호두과자, "
        "단팥빵, 생선구이, 불고기, 전복죽, 팥빙수, 잔치국수, 김치찌개, 감자전, 해물파전, 유자차, 인절미, "
        "닭갈비, 순두부"
    ),
    "goods": words(
        "헌책, 장미, 나무인형, 구두, 엽서, 기타, 밀짚모자, 화분, 공책, 만년필, 물감, 지도, 등잔, 양초, 시계, "
        "찻잔, 목도리, 그림책, 음반, 가방"
    ),
    "theme": words(
        "마을역사, 현대미술, 옛날영화, 민속음악, 우주여행, 바다생물, 사진, 동전, 동화책, 전통춤, 종이공예, "
        "기차, 철새, 세계지도, 석기, 도자기, 한글, 판소리"
    ),
}

ENGLISH_AREAS = {
    "riverside": "at the",
    "old town": "in the",
    "city center": "in the",
    "harbor": "at the",
    "station": "near the",
    "market square": "on the",
    "north side": "on the",
    "south side": "on the",
    "east end": "in the",
    "west end": "in the",
    "town hall": "near the",
    "university": "near the",
    "beach": "at the",
    "lake": "by the",
    "main street": "on the",
    "airport": "near the",
    "park": "by the",
    "castle": "near the",
    "village": "in the",
    "hillside": "on the",
}
"""Area -> the words that lead to it."""

KOREAN_AREAS = words(
    "강변, 시장 골목, 역 앞, 구시가, 항구, 언덕 위, 대학가, 광장 옆, 시청 앞, 호숫가, 바닷가, 공원 옆, "
    "마을 입구, 큰길, 다리 건너, 학교 앞, 성 아래, 남쪽 거리, 북쪽 거리, 동쪽 거리, 서쪽 거리"
)

ENGLISH_PRICES = ("low", "fair", "cheap", "moderate", "high", "average", "reasonable")
KOREAN_PRICES = ("저렴한 편", "보통", "비싼 편", "적당한 편", "높은 편", "낮은 편", "알맞은 편")

ENGLISH_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
KOREAN_DAYS = ("월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일")

ENGLISH_HOURS = tuple(f"{hour} am" for hour in range(6, 12)) + tuple(f"{hour} pm" for hour in range(1, 7))
KOREAN_HOURS = tuple(f"오전 {hour}시" for hour in range(6, 12)) + tuple(f"오후 {hour}시" for hour in range(1, 7))

RATINGS = ("1", "2", "3", "4", "5")
SEATS = tuple(str(seats) for seats in range(10, 100, 5))
