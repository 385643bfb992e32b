"""The words of the simulated shop, as texts that `catalogue` parses."""

# Department, group, then one line per type:
#   names, most usual first, the last used by queries only : attributes : feature : what it is for
TYPE_TREE = """
Electronics
  Phones & Tablets
    smartphone/mobile phone/cell phone : storage colour display : headphone jack :
    tablet/tablet computer/slate pad : storage colour display : pen :
    phone case/phone cover/handset shell : fits colour case_material : kickstand : smartphone
    screen protector/tempered glass/display film : fits pack : applicator : smartphone
    tablet case/tablet cover/slate folio : fits colour case_material : pen holder : tablet
  Computers
    laptop/notebook/portable computer : storage display colour : touch screen :
    computer monitor/display/pc screen : display resolution colour : speakers :
    laptop sleeve/notebook pouch/laptop bag : fits colour case_material : handle : laptop
    wireless mouse/computer mouse/cordless mouse : colour connection : side buttons :
    keyboard/pc keyboard/typing board : colour connection layout : backlight :
    monitor arm/monitor mount/screen bracket : fits colour : clamp : computer monitor
  Sound
    headphones/over ear headphones/headset : colour connection : microphone :
    earbuds/in ear headphones/earphones : colour connection : charging case :
    bluetooth speaker/portable speaker/wireless boombox : colour battery : light :
    earbud tips/ear tips/silicone buds : fits size pack colour : foam : earbuds
  Cameras
    digital camera/compact camera/photo camera : resolution colour storage : flash :
    tripod/camera stand/three leg stand : height colour : ball head : digital camera
    camera bag/camera case/photo pouch : fits colour case_material : rain cover : digital camera
Clothing
  Tops
    t-shirt/tee/crew neck top : audience size colour fabric pattern : pocket :
    dress shirt/button down shirt/formal shirt : audience size colour fabric pattern : pocket :
    hoodie/hooded sweatshirt/pullover : audience size colour fabric : zipper :
    sweater/knit jumper/cardigan : audience size colour fabric pattern : buttons :
  Bottoms
    jeans/denim pants/dungarees : audience size colour fit : holes :
    leggings/yoga pants/tights : audience size colour fabric : pockets :
    shorts/short pants/bermudas : audience size colour fabric pattern : lining :
    leather belt/waist belt/strap belt : audience size colour : buckle : jeans
  Outerwear
    rain jacket/waterproof jacket/raincoat : audience size colour : hood :
    winter coat/parka/puffer : audience size colour : fur :
    winter gloves/mittens/hand warmers : audience size colour fabric : touch fingers :
  Dresses
    summer dress/sundress/frock : audience size colour fabric pattern : sleeves :
    skirt/midi skirt/a-line bottom : size colour fabric pattern : slit :
Shoes
  Athletic
    running shoes/runners/jogging sneakers : audience shoe_size colour : arch support :
    basketball shoes/high top sneakers/court trainers : audience shoe_size colour : ankle strap :
    hiking boots/trail boots/trekking footwear : audience shoe_size colour shoe_material : steel \
toe :
  Casual
    sandals/flip flops/open toe shoes : audience shoe_size colour shoe_material : heel :
    loafers/slip on shoes/moccasins : audience shoe_size colour shoe_material : laces :
    slippers/house shoes/indoor mules : audience shoe_size colour fabric : rubber sole :
  Shoe care
    shoe laces/laces/boot strings : length colour pack : tips : running shoes
    shoe insoles/inserts/footbeds : audience shoe_size pack : gel : running shoes
    shoe polish/leather cream/boot wax : colour pack : brush : loafers
Kitchen
  Cookware
    frying pan/skillet/fry pan : diameter pan_material colour : lid :
    saucepan/cooking pot/milk pan : volume pan_material : lid :
    dutch oven/casserole dish/cocotte : volume colour pan_material : lid :
    pan lid/glass lid/skillet cover : diameter pan_material : steam vent : frying pan
  Appliances
    coffee maker/coffee machine/brewer : colour cups : grinder :
    electric kettle/water boiler/tea kettle : volume colour kettle_material : temperature control :
    blender/smoothie maker/liquidizer : watts colour volume : travel cup :
    toaster/bread toaster/toast machine : slices colour : bagel setting :
    coffee filters/paper filters/brew cones : cups pack : bleach : coffee maker
  Tableware
    coffee mug/mug/drinking cup : volume colour ware_material : handle :
    wine glasses/stemware/goblets : volume pack ware_material : stem :
    dinner plates/plate set/dishes : diameter colour pack ware_material : rim :
    kitchen knife/chef knife/cooks blade : length knife_material : sheath :
    knife sharpener/whetstone/blade grinder : colour knife_material : guide : kitchen knife
Home
  Furniture
    sofa/couch/settee : seats colour upholstery : chaise :
    office chair/desk chair/swivel seat : colour upholstery : armrests :
    dining table/kitchen table/eating table : seats wood colour : extension :
    bookcase/bookshelf/shelving unit : shelves wood colour : doors :
    sofa cover/couch slipcover/settee throw : seats colour fabric : straps : sofa
  Bedding
    bed sheets/sheet set/bed linen : bed_size colour fabric pattern : deep pocket :
    pillow/bed pillow/head cushion : bed_size filling pack : zipper :
    comforter/duvet/quilt : bed_size colour filling pattern : cover :
    duvet cover/comforter cover/quilt case : bed_size colour fabric pattern : zipper : comforter
    pillow case/pillow cover/cushion slip : bed_size colour fabric pack : envelope closure : pillow
  Lighting
    table lamp/desk lamp/bedside light : colour height lamp_material : usb port :
    floor lamp/standing lamp/torchiere : colour height lamp_material : shelf :
    light bulb/led bulb/lamp globe : watts pack light_colour : dimmer : table lamp
    lamp shade/lampshade/light cover : diameter colour fabric : harp : table lamp
  Decor
    wall clock/hanging clock/timepiece : diameter colour wood : numbers :
    picture frame/photo frame/print mount : photo_size colour wood pack : mat :
    area rug/carpet/floor mat : rug_size colour pattern : non slip backing :
Garden
  Tools
    lawn mower/grass cutter/mowing machine : voltage cut_width : grass bag :
    hedge trimmer/hedge cutter/bush clippers : voltage length : extension pole :
    garden hose/water hose/hosepipe : hose_length colour : nozzle :
    hose nozzle/spray nozzle/water gun head : colour pack tool_material : shut off valve : garden \
hose
    mower blade/replacement blade/cutting bar : fits cut_width pack : bolts : lawn mower
  Outdoor living
    patio chair/garden chair/outdoor seat : colour outdoor_material pack : cushion :
    patio umbrella/parasol/sun shade : diameter colour : base :
    gas grill/barbecue/bbq : burners colour : side shelf :
    grill cover/barbecue cover/bbq hood : fits colour : handles : gas grill
    grill brush/barbecue scraper/grate cleaner : length tool_material : wooden handle : gas grill
  Planting
    flower pot/planter/plant container : diameter colour pot_material : drainage hole :
    potting soil/potting mix/compost : weight plants : fertilizer :
    plant stand/flower stand/pot rack : height colour wood : wheels : flower pot
Tools
  Power tools
    cordless drill/drill driver/power drill : voltage watts : battery :
    circular saw/wood saw/round blade cutter : voltage watts cut_width : laser guide :
    orbital sander/palm sander/sanding machine : voltage watts : dust bag :
    drill bits/drill bit set/boring tips : tool_material pack : storage box : cordless drill
    drill battery/battery pack/spare accumulator : fits voltage : charge indicator : cordless drill
  Hand tools
    hammer/claw hammer/nail driver : weight tool_material : magnet :
    screwdriver set/screwdrivers/torx drivers : pack tool_material : rack :
    tape measure/measuring tape/ruler roll : tape_length colour : magnet :
    tool box/tool chest/workshop case : colour tool_material : tray :
  Safety
    work gloves/safety gloves/protective mitts : size glove_material pack : grip :
    safety glasses/protective goggles/eye shield : colour pack : side shields :
    ladder/step ladder/climbing steps : height tool_material : tool shelf :
Beauty
  Hair
    shampoo/hair wash/hair cleanser : volume scent hair : sulfate :
    conditioner/hair conditioner/cream rinse : volume scent hair : silicone :
    hair dryer/blow dryer/hair blower : watts colour : diffuser :
    hair brush/detangling brush/paddle comb : colour brush_material : handle :
  Skin
    face cream/moisturizer/day lotion : weight skin scent : parabens :
    sunscreen/sun cream/sunblock : spf volume skin : oxybenzone :
    body soap/soap bar/hand bar : pack scent skin : palm oil :
    soap dish/soap holder/bar tray : colour bath_material : drain : body soap
  Makeup
    lipstick/lip colour/rouge : shade finish : gluten :
    mascara/lash colour/eyelash paint : shade volume : waterproofing :
    nail polish/nail lacquer/varnish : shade finish : formaldehyde :
    makeup bag/cosmetic bag/toiletry pouch : colour case_material : mirror : lipstick
Grocery
  Drinks
    coffee beans/whole bean coffee/roasted beans : weight roast : caffeine :
    green tea/tea bags/leaf infusion : pack flavour : caffeine :
    protein powder/whey powder/muscle shake : weight flavour : lactose :
    shaker bottle/protein shaker/mixing cup : volume colour : mixing ball : protein powder
  Snacks
    granola bars/snack bars/muesli bites : pack flavour : nuts :
    dark chocolate/chocolate bar/cocoa tablet : weight flavour : sugar :
    potato chips/crisps/salted snack : weight flavour : salt :
    dried fruit/fruit mix/raisin blend : weight fruit : sugar :
  Pantry
    pasta/spaghetti/noodles : weight pasta_shape : gluten :
    peanut butter/nut spread/nut paste : weight texture : sugar :
    olive oil/cooking oil/salad oil : volume oil : glass bottle :
Sports
  Fitness
    yoga mat/exercise mat/gym pad : thickness colour mat_material : carry strap :
    dumbbells/hand weights/free weights : weight colour pack : rack :
    resistance bands/exercise bands/stretch loops : pack colour mat_material : door anchor :
    exercise bike/stationary bike/spin cycle : colour levels : screen :
    bike mat/equipment mat/treadmill pad : thickness mat_material : foam : exercise bike
  Cycling
    mountain bike/trail bike/mtb : wheel_size colour frame_material : suspension :
    bike helmet/cycling helmet/head guard : audience size colour : visor : mountain bike
    bike lock/cycle lock/chain lock : length colour : key : mountain bike
    inner tube/bike tube/tire tube : wheel_size pack : sealant : mountain bike
  Camping
    camping tent/dome tent/shelter : people colour : rain fly :
    sleeping bag/camp bedding/mummy bag : temperature colour filling : hood :
    backpack/rucksack/knapsack : liters colour audience : frame :
    tent pegs/tent stakes/ground spikes : pack length tool_material : pouch : camping tent
    water bottle/drinking flask/canteen : volume colour bottle_material : straw :
Pets
  Dogs
    dog food/kibble/canine feed : weight meat pet_age : grain :
    dog bed/pet bed/puppy mat : pet_size colour fabric : bolster :
    dog leash/dog lead/walking rope : length colour leash_material : padded handle :
    dog collar/pet collar/neck band : pet_size colour leash_material : bell :
    collar tag/dog id tag/name plate : colour tag_material : engraving : dog collar
  Cats
    cat litter/litter sand/kitty granules : weight scent litter : clumping :
    litter box/cat toilet/kitty pan : colour pet_size : lid :
    cat tree/scratching post/climbing tower : height colour : hammock :
    litter scoop/litter shovel/poop scooper : colour tool_material : holder : litter box
  Fish
    aquarium/fish tank/glass tank : gallons shape : light :
    aquarium filter/tank filter/water cleaner : gallons power_source : carbon : aquarium
    fish food/fish flakes/tank feed : weight fish : coloring : aquarium
Toys
  Building
    building blocks/construction bricks/stacking toy : pieces child_age theme : figures :
    wooden train set/toy railway/rail set : pieces child_age : bridge :
    train tracks/rail pieces/track expansion : pieces wood : switches : wooden train set
    puzzle/jigsaw/picture game : pieces theme child_age : poster :
  Play
    doll/baby doll/play figure : height child_age hair_colour : clothes :
    doll clothes/doll outfit/figure wardrobe : height colour pattern : shoes : doll
    board game/family game/tabletop game : players child_age theme : timer :
    remote control car/rc car/radio racer : scale colour voltage : lights :
    plush toy/stuffed animal/cuddly bear : height animal colour : sound :
  Baby
    baby stroller/pushchair/pram : colour frame_material : cup holder :
    stroller cover/rain shield/pram hood : fits colour : window : baby stroller
    diapers/nappies/pampers : diaper_size pack : fragrance :
    baby bottle/feeding bottle/nursing flask : volume pack bottle_material : bpa :
"""

# Attribute: values, most popular first; each lists its wordings as the type names do.
ATTRIBUTE_VALUES = """
colour: black/jet; white/ivory; blue/azure; grey/gray/charcoal; red/crimson; green/emerald; navy/\
dark blue/midnight; pink/rose; brown/chocolate brown; beige/sand/cream
storage: 128gb/128 gb; 256gb/256 gb; 64gb/64 gb; 512gb/512 gb; 1tb/1 tb/1000 gb
display: 15.6 inch/15.6"/15.6in; 13 inch/13"/13in; 24 inch/24"/24in; 27 inch/27"/27in; 10 inch/\
10"/10in
resolution: 1080p/full hd/1920x1080; 4k/ultra hd/2160p; 1440p/qhd/2k; 720p/hd ready
case_material: leather/genuine leather/cowhide; silicone/rubber; nylon/polyester; hard plastic/\
hardshell; felt/wool felt
connection: bluetooth/wireless/cordless; wired/cable/corded; usb c/type c; 2.4 ghz/usb receiver/\
dongle
layout: full size/104 keys/with numpad; compact/tenkeyless/small; ergonomic/split/wrist friendly
battery: 10 hours/10h; 20 hours/20h; 30 hours/30h
height: 50 inch/50"/127 cm; 20 inch/20"/51 cm; 60 inch/60"/152 cm; 12 inch/12"/30 cm; 72 inch/6 \
ft/183 cm
audience: women's/womens/ladies; men's/mens/gents; kids/children's/youth; unisex/adult
size: medium/size m; large/size l; small/size s; x-large/xl/extra large; xx-large/2xl/plus size
shoe_size: size 9/us 9; size 10/us 10; size 8/us 8; size 11/us 11; size 7/us 7; size 10 wide/us \
10w/10 extra wide
fabric: cotton/100% cotton/pure cotton; polyester/microfiber; linen/flax linen; wool/merino/\
lambswool; fleece/sherpa/fluffy
pattern: solid/plain; striped/stripes/pinstripe; floral/flower print/flowery; plaid/checkered/\
tartan
fit: slim fit/skinny/tight; straight leg/regular fit; relaxed fit/loose/baggy; bootcut/flared
shoe_material: leather/genuine leather/cowhide; suede/nubuck; mesh/knit/breathable; vegan leather/\
faux leather/synthetic
length: 6 inch/6"/15 cm; 8 inch/8"/20 cm; 10 inch/10"/25 cm; 48 inch/4 ft/120 cm; 72 inch/6 ft/\
180 cm
diameter: 10 inch/10"/26 cm; 12 inch/12"/30 cm; 8 inch/8"/20 cm; 14 inch/14"/36 cm
pan_material: nonstick/non-stick/teflon; stainless steel/inox/steel; cast iron/iron; ceramic/\
stone coated; copper/hammered copper
kettle_material: stainless steel/inox/steel; glass/borosilicate; plastic/bpa free plastic; \
ceramic/porcelain
ware_material: porcelain/china/ceramic; glass/crystal/clear; stoneware/earthenware/pottery; \
melamine/unbreakable/plastic
knife_material: stainless steel/inox/steel; carbon steel/high carbon; ceramic/zirconia; damascus/\
damask
volume: 16 oz/16oz/half liter; 32 oz/32oz/1 liter; 8 oz/8oz/250 ml; 64 oz/64oz/2 liter
cups: 12 cup/12-cup; 4 cup/4-cup; single serve/1 cup/one cup
watts: 1000w/1000 watt; 600w/600 watt; 60w/60 watt; 1500w/1500 watt
slices: 2 slice/two slice; 4 slice/four slice
seats: 3 seater/three seat; 2 seater/loveseat/for two; 4 seater/for four; 6 seater/for six
upholstery: fabric/linen blend/cloth; leather/genuine leather/cowhide; velvet/velour/plush; mesh/\
breathable
wood: oak/oak wood; pine/solid pine; walnut/dark wood; bamboo/sustainable wood; metal/iron/steel
shelves: 5 tier/5 shelf; 3 tier/3 shelf; 4 tier/4 shelf
bed_size: queen/queen size; king/king size; twin/single; full/double
filling: down/goose down/feather; memory foam/foam/viscoelastic; down alternative/synthetic/\
hypoallergenic; cotton/cotton filled
lamp_material: metal/iron/steel; glass/crystal; wood/wooden/rustic; ceramic/porcelain
light_colour: warm white/2700k/soft white; daylight/5000k/cool white; multicolor/rgb/color changing
photo_size: 8x10/8 x 10/a4; 5x7/5 x 7; 4x6/4 x 6/postcard size; 11x14/11 x 14/a3
rug_size: 5x7/5' x 7'/medium; 8x10/8' x 10'/large; 3x5/3' x 5'/small; 2x8/2' x 8'/runner
voltage: 20v/20 volt; 18v/18 volt; 12v/12 volt; 40v/40 volt
cut_width: 16 inch/16"/40 cm; 21 inch/21"/53 cm; 7 inch/7"/18 cm
hose_length: 50 ft/50ft/15 m; 100 ft/100ft/30 m; 25 ft/25ft/8 m
tool_material: steel/carbon steel/metal; aluminum/aluminium/light metal; fiberglass/fibreglass/\
composite; plastic/polymer
outdoor_material: rattan/wicker/woven; aluminum/aluminium/light metal; teak/wood/wooden; plastic/\
resin/polymer
burners: 3 burner/three burner; 2 burner/two burner; 4 burner/four burner
pot_material: ceramic/glazed/porcelain; terracotta/clay/earthenware; plastic/resin/polymer; metal/\
galvanized/zinc
weight: 2 lb/2lb/1 kg; 5 lb/5lb/2 kg; 10 lb/10lb/5 kg; 1 lb/1lb/half kilo; 20 lb/20lb/9 kg
plants: all purpose/universal; cactus/succulents; vegetables/herbs; orchids/orchid mix
pack: 2 pack/pack of 2/two; 4 pack/pack of 4/four; 1 pack/single; 6 pack/pack of 6/half dozen; 12 \
pack/pack of 12/dozen
tape_length: 25 ft/25ft/7.5 m; 16 ft/16ft/5 m; 100 ft/100ft/30 m
glove_material: leather/cowhide; nitrile/latex free/rubber; cotton/knit; kevlar/cut resistant/\
anti cut
scent: lavender/lavande; unscented/fragrance free/odorless; citrus/lemon/orange; vanilla/sweet \
vanilla; rose/floral
hair: dry hair/moisturizing/hydrating; oily hair/clarifying/greasy; curly hair/curls/wavy; color \
treated/dyed hair
brush_material: boar bristle/natural bristle; nylon/plastic; bamboo/wooden/wood
skin: sensitive skin/gentle/hypoallergenic; dry skin/hydrating; oily skin/mattifying/acne; mature \
skin/anti aging/wrinkles
spf: spf 50/50+; spf 30/30+; spf 15/15+
bath_material: ceramic/porcelain; bamboo/wooden/wood; silicone/rubber; stainless steel/inox
shade: red/crimson/scarlet; nude/natural/skin tone; black/noir; pink/rose; plum/burgundy/berry
finish: matte/mat/velvet; glossy/shiny/gloss; shimmer/glitter/sparkle
roast: medium roast/city roast/medium; dark roast/french roast/espresso; light roast/blonde/light
flavour: chocolate/cocoa/choco; vanilla/french vanilla; original/classic/natural; strawberry/\
berry; lemon/citrus; mint/peppermint
fruit: mango/tropical; cranberry/cranberries; apricot/apricots; mixed/assorted/variety
pasta_shape: penne/quills; fusilli/spirals/twists; linguine/flat; elbow/macaroni
texture: creamy/smooth; crunchy/chunky/with pieces
oil: extra virgin/cold pressed/first press; refined/light/mild; infused/flavored/garlic
thickness: 6mm/medium thick; 10mm/extra thick/cushioned; 4mm/thin/travel
mat_material: natural rubber/rubber; tpe/foam; cork/natural cork; latex/elastic
levels: magnetic/silent; belt drive/quiet; air resistance/fan
wheel_size: 26 inch/26"/26er; 29 inch/29"/29er; 20 inch/20"/20er
frame_material: aluminum/aluminium/alloy; steel/hi ten; carbon/carbon fiber/lightweight
people: 4 person/4 man/family; 2 person/2 man/couple; 6 person/6 man/large group; 1 person/solo/\
one man
temperature: 0 degree/winter/cold weather; 20 degree/3 season; 40 degree/summer/warm weather
liters: 30l/30 liter; 50l/50 liter; 20l/20 liter; 70l/70 liter
bottle_material: stainless steel/insulated/metal; glass/borosilicate; plastic/tritan
meat: chicken/poultry; beef/red meat; salmon/fish; lamb/sheep
pet_age: adult/grown; puppy/junior/young; senior/old/aging
pet_size: large/big/l; medium/m; small/little/s; extra large/giant/xl
leash_material: nylon/polyester; leather/genuine leather/cowhide; rope/braided/climbing rope; \
chain/metal
tag_material: stainless steel/inox; brass/gold tone; silicone/silent
litter: clay/bentonite; wood/pine/pellets; silica/crystal; tofu/plant based
gallons: 10 gallon/10 gal/40 l; 20 gallon/20 gal/75 l; 5 gallon/5 gal/20 l; 55 gallon/55 gal/200 l
shape: rectangular/standard; round/bowl; cube/square; corner/bow front
power_source: hang on/hob; submersible/internal; canister/external
fish: tropical fish/tropical; goldfish/koi; betta/fighting fish; bottom feeder/catfish
pieces: 100 piece/100 pcs; 500 piece/500 pcs; 1000 piece/1000 pcs; 50 piece/50 pcs
child_age: ages 3+/toddler/preschool; ages 6+/6 years/grade school; ages 8+/8 years/tween; ages \
1+/1 year/infant
theme: castle/knights/medieval; space/galaxy/rocket; animals/zoo/wildlife; city/town/traffic; \
dinosaur/jurassic/t rex
hair_colour: blonde/fair hair; brunette/brown hair; red hair/ginger
players: 2 players/two player; 4 players/2-4 players/four player; party/6+ players/large group
scale: 1-18/medium scale; 1-10/large scale/big; 1-24/small scale/mini
animal: bear/teddy; dog/puppy; bunny/rabbit; unicorn/horse; cat/kitten
diaper_size: size 3/16-28 lb; size 4/22-37 lb; size 2/12-18 lb; newborn/size 1
"""

WORD_LISTS = """
series: aero/alto/apex/aria/atlas/aura/axis/blaze/bolt/breeze/canyon/cedar/comet/coral/crest/delta/\
drift/echo/edge/ember/flux/forge/fusion/glide/halo/haven/helix/indigo/iris/juno/karma/lark/lumen/\
lyric/maple/meridian/mosaic/nimbus/nova/oasis/onyx/opal/orbit/pearl/pilot/prism/pulse/quest/ridge/\
river/sage/scout/sierra/solo/spark/summit/terra/tide/trail/umbra/vega/vista/wave/zephyr
brand starts: vel/nor/kas/bri/tam/lor/zen/pol/ark/mir/dun/fel/gar/hol/jas/qui
brand ends: mora/dex/tano/via/lux/ton/ridge/well/sen/rio/ford/ley/mark/vik/zo/bay
filler: premium quality/best seller/upgraded version/great gift idea/for everyday use/durable/\
new 2024/perfect gift for mom/birthday present/professional/easy to clean/lightweight/heavy duty/\
modern design/for home and travel/top rated/limited edition/stylish/multipurpose/classic/\
satisfaction guaranteed/long lasting/official/ideal for beginners/eco friendly
query filler: best/cheap/good/sale/new/top rated
"""
